"""Ingest: every file ends as accepted or refused, and no patient's id leaves it."""

import csv
import io
import json
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from hipray.config.images import ImageLimits
from hipray.config.jobs import IngestRun
from hipray.config.labels import LabelRules
from hipray.config.phantom import FilmFormat, PhantomConfig
from hipray.data import archive
from hipray.data.images import read_hips
from hipray.data.ingest import FILES_KEY, SHEET_KEY, run_ingest
from hipray.data.manifest import read_manifest, read_table
from hipray.data.phantom import StudyKind, film_path, render_study
from hipray.errors import AccessDeniedError, ConfigError, DataError
from hipray.storage import open_store
from hipray.storage.local import LocalStore
from hipray.vocab import REGIONS, DataSource, LabelType, RefusalCode, Region, Side
from tests.data.film_files import draw_hip, encode_dicom, encode_image
from tests.small_workspace import write_archive, write_files

MIXED = PhantomConfig(
    seed=4, n_patients=3, n_second_hips=1, n_device_a=2, pelvis_films=1, implants=1, blurred=1,
    decoys=15, image_px=192, exact_prevalence=False,
)  # fmt: skip


def ingest(folder, archive, **changes):
    config = IngestRun(workspace=str(folder / "w"), images=str(archive), readers=1, **changes)
    return run_ingest(config), open_store(config.workspace)


def files_of(store):
    return {row["file"]: row for row in read_table(store, FILES_KEY).to_pylist()}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    archive = write_archive(folder / "archive", MIXED)
    flow, store = ingest(folder, archive.folder)
    return archive, flow, store


def test_found_files_are_accepted_plus_refused(mixed) -> None:
    archive, flow, store = mixed
    films = [p for p in (archive.folder / "films").iterdir() if p.suffix != ".json"]
    files = files_of(store)
    assert flow.found == len(films) == len(files)
    assert flow.accepted + sum(flow.refused.values()) == flow.found
    assert flow.accepted == sum(row["outcome"] == "accepted" for row in files.values())


def test_each_bad_file_is_refused_for_its_own_reason_with_detector_and_evidence(mixed) -> None:
    archive, _, store = mixed
    files = files_of(store)
    # only a segmenter can tell that an unnamed film shows no hip
    later = {RefusalCode.REGION_MISSING, RefusalCode.DUPLICATE}
    expected = {
        film_path(MIXED, s): s.refusal
        for s in archive.studies
        if s.refusal is not None and s.refusal not in later
    }
    assert len(expected) >= 13
    assert {name: files[name]["code"] for name in expected} == expected
    assert all(files[name]["detector"] and files[name]["evidence"] for name in expected)


def test_the_second_of_two_equal_films_is_refused_as_a_duplicate(mixed) -> None:
    _, _, store = mixed
    duplicates = [r for r in files_of(store).values() if r["code"] == RefusalCode.DUPLICATE]
    assert [row["detector"] for row in duplicates] == ["pixel_hash"]


def test_hips_in_the_files_table_are_the_rows_of_the_manifest(mixed) -> None:
    _, flow, store = mixed
    listed = [hip for row in files_of(store).values() for hip in row["hip_ids"] or []]
    manifest = read_manifest(store)
    assert sorted(listed) == sorted(manifest["hip_id"])
    assert flow.hips == len(listed)
    assert flow.patients == manifest["patient_id"].nunique()


def test_a_pelvis_film_becomes_two_hips_of_one_patient_with_their_own_masks(mixed) -> None:
    archive, _, store = mixed
    study = next(s for s in archive.studies if s.kind is StudyKind.PELVIS)
    hips = files_of(store)[film_path(MIXED, study)]["hip_ids"]
    manifest = read_manifest(store).set_index("hip_id").loc[hips]
    assert sorted(manifest["side"]) == [Side.LEFT, Side.RIGHT]
    assert manifest["patient_id"].nunique() == 1
    assert manifest["label_t_score_total_hip"].notna().all()
    truth = {hip.side: hip.masks for hip in render_study(MIXED, study).hips}
    result = read_hips((archive.folder / film_path(MIXED, study)).read_bytes(), name="pelvis")
    for hip in result.hips:
        row = manifest[manifest["side"] == hip.side].iloc[0]
        for channel, region in enumerate(REGIONS):
            drawn = decode(store, row[f"mask_key_{region}"]) >= 128
            real = hip.geometry.warp_mask(truth[hip.side][channel])
            assert (drawn & real).sum() / (drawn | real).sum() > 0.6


def decode(store, key):
    return np.asarray(Image.open(BytesIO(store.read(key))))


def test_annotated_masks_lie_on_the_canonical_hip(small_workspace) -> None:
    store = small_workspace.store
    manifest = read_manifest(store)
    assert small_workspace.flow.annotations == len(manifest)
    for row in manifest.head(6).to_dict("records"):
        hip = decode(store, row["image_key"])
        masks = {r: decode(store, row[f"mask_key_{r}"]) >= 128 for r in REGIONS}
        assert all(mask.shape == hip.shape for mask in masks.values())
        # bone is brighter than the film's mean
        assert hip[masks[Region.FEMORAL_NECK]].mean() > hip.mean()
        assert (masks[Region.FEMORAL_NECK] & masks[Region.TOTAL_HIP]).any()


def test_no_patient_id_or_file_name_leaves_ingest_in_clear(small_workspace) -> None:
    store = small_workspace.store
    patients = {study.patient_id for study in small_workspace.archive.studies}
    names = {study.name for study in small_workspace.archive.studies}
    text = read_manifest(store).to_json()
    assert not [word for word in patients | names if word in text]
    flow = store.read("ingest/flow.json").decode()
    assert not [word for word in patients | names if word in flow]


def test_both_hips_of_a_patient_share_a_pseudonym(small_workspace) -> None:
    manifest = read_manifest(small_workspace.store)
    assert len(manifest) == 34
    assert manifest["patient_id"].nunique() == 30
    assert set(manifest["source"]) == {DataSource.PHANTOM}


def test_a_second_ingest_of_the_same_archive_is_reused(small_workspace, small_archive) -> None:
    config = IngestRun(workspace=small_workspace.store.uri, images=str(small_archive.folder))
    before = small_workspace.store.info("manifest.parquet")
    flow = run_ingest(config)
    assert flow.reused
    assert flow.found == small_workspace.flow.found
    assert small_workspace.store.info("manifest.parquet") == before


def write_real_style(folder, *, scores=(-3.0, -1.0, -2.5), **columns):
    """PNG films without headers and a plain table: file name and one T-score each."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["image", "patient", "t_score", *columns])
    for number, score in enumerate(scores):
        name = f"hip{number}.png"
        write_files(folder, {name: encode_image(draw_hip(seed=number))})
        writer.writerow(
            [name, f"K{number}", score, *(values[number] for values in columns.values())]
        )
    write_files(folder, {"scores.csv": table.getvalue().encode()})


def test_png_films_with_a_plain_t_score_column_need_only_the_region(tmp_path) -> None:
    write_real_style(tmp_path / "a", side=["left", "right", "left"])
    flow, store = ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP)
    assert (flow.found, flow.accepted, flow.annotations) == (3, 3, 0)
    manifest = read_manifest(store).sort_values("t_total_hip")
    assert manifest["t_total_hip"].tolist() == [-3.0, -2.5, -1.0]
    assert manifest["label_t_score_total_hip"].tolist() == [True, True, False]
    assert manifest["side"].tolist() == ["left", "left", "right"]
    assert manifest["flipped"].tolist() == [False, False, True]
    assert manifest["mask_key_total_hip"].isna().all()
    assert set(manifest["source"]) == {DataSource.REAL}


def test_given_labels_win_and_their_disagreement_with_the_figures_is_counted(tmp_path) -> None:
    write_real_style(tmp_path / "a", osteoporosis=[1, 1, 1])
    flow, store = ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP)
    assert read_manifest(store)["label_t_score_total_hip"].all()
    counts = {"compared": 3, "disagreeing": 1}
    assert flow.given == {Region.TOTAL_HIP: {LabelType.T_SCORE: counts}}


def test_other_label_rules_make_another_ingest(tmp_path) -> None:
    write_real_style(tmp_path / "a")
    _, store = ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP)
    assert read_manifest(store)["label_t_score_total_hip"].sum() == 2
    flow, store = ingest(
        tmp_path, tmp_path / "a", region=Region.TOTAL_HIP, rules=LabelRules(t_threshold=-1.0)
    )
    assert not flow.reused
    assert read_manifest(store)["label_t_score_total_hip"].sum() == 3


def test_films_of_unknown_side_are_told_first_since_none_of_them_is_turned(tmp_path) -> None:
    write_real_style(tmp_path / "a")
    flow, _ = ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP)
    assert flow.problems[0].startswith("3 hips are of unknown side")


def test_one_person_whom_table_and_header_name_differently_is_one_patient(tmp_path) -> None:
    films = {
        f"{name}.dcm": encode_dicom(draw_hip(seed=seed).astype("uint16") * 12, PatientID="H1")
        for seed, name in enumerate(("a", "b"))
    }
    table = b"file,patient_id,t_score\na.dcm,S001,-3\nb.dcm,,-1\n"
    write_files(tmp_path / "a", {**films, "scores.csv": table})
    flow, store = ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP)
    assert (flow.hips, flow.patients) == (2, 1)
    assert read_manifest(store)["patient_id"].nunique() == 1
    assert any("share a DICOM PatientID" in problem for problem in flow.problems)


def test_a_right_hip_named_by_the_table_is_turned_to_the_left(tmp_path) -> None:
    write_real_style(tmp_path / "a", side=["left", "right", "left"])
    _, store = ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP)
    right = read_manifest(store).query("side == 'right'").iloc[0]
    plain = read_hips(encode_image(draw_hip(seed=1)), name="").hips[0].pixels
    difference = np.abs(decode(store, right["image_key"]).astype(int) - plain[:, ::-1])
    assert difference.mean() < 2


def test_a_right_hip_that_only_its_patients_record_names_is_turned_too(tmp_path) -> None:
    table = "patient_id,side,t_score\nP7,right,-2.9\n"
    data = encode_dicom(PatientID="P7", ImageLaterality="", Laterality="", SeriesDescription="")
    write_files(tmp_path / "a", {"a.dcm": data, "t.csv": table.encode()})
    _, store = ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP)
    row = read_manifest(store).iloc[0]
    assert (row["side"], row["flipped"]) == ("right", True)


def test_a_half_made_ingest_leaves_no_older_counts_in_force(tmp_path, monkeypatch) -> None:
    write_real_style(tmp_path / "a")
    ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("hipray.data.ingest.build_contact_sheet", _interrupt)
        ingest(tmp_path, tmp_path / "a", region=Region.FEMORAL_NECK)
    flow, _ = ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP)
    assert not flow.reused


def _interrupt(tiles):
    raise KeyboardInterrupt


@pytest.mark.parametrize("lost", ["manifest.parquet", "ingest/files.parquet", "a film"])
def test_an_ingest_whose_results_are_gone_is_done_again(tmp_path, lost) -> None:
    write_real_style(tmp_path / "a")
    _, store = ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP)
    if lost == "a film":
        lost = read_manifest(store)["image_key"].iloc[1]
    store.delete(lost)
    flow, _ = ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP)
    assert not flow.reused
    assert store.exists(lost)


def test_an_annotation_that_goes_after_the_listing_costs_the_masks(tmp_path, monkeypatch):
    write_files(tmp_path / "a", {"a.dcm": encode_dicom(), "a.json": b"{}"})
    listed = archive.list_archive

    def list_and_lose(store, config):
        listing = listed(store, config)
        store.delete("a.json")
        return listing

    monkeypatch.setattr("hipray.data.ingest.list_archive", list_and_lose)
    flow, _ = ingest(tmp_path, tmp_path / "a")
    assert flow.accepted == 1
    assert any("gone when it was read" in problem for problem in flow.problems)


def test_a_file_that_goes_after_the_listing_is_refused_as_missing(tmp_path, monkeypatch):
    write_real_style(tmp_path / "a")
    listed = archive.list_archive

    def list_and_lose(store, config):
        listing = listed(store, config)
        store.delete("hip1.png")
        return listing

    monkeypatch.setattr("hipray.data.ingest.list_archive", list_and_lose)
    flow, _ = ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP)
    assert (flow.accepted, flow.refused) == (2, {RefusalCode.MISSING_OBJECT: 1})


DENIED = AccessDeniedError("access", "403 AccessDenied", "check the policy")


def withhold(monkeypatch, *keys):
    """Let the store deny access to these keys."""
    given = LocalStore.read_object

    def read_object(store, key, **bounds):
        if key in keys:
            raise DENIED
        return given(store, key, **bounds)

    monkeypatch.setattr(LocalStore, "read_object", read_object)


def test_what_the_store_withholds_is_refused_until_it_is_given(tmp_path, monkeypatch) -> None:
    write_real_style(tmp_path / "a")
    write_files(tmp_path / "a", {"hip0.json": b"{}"})
    with monkeypatch.context() as patch:
        withhold(patch, "hip1.png", "hip0.json")
        flow, store = ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP)
    assert (flow.accepted, flow.refused) == (2, {RefusalCode.UNREADABLE: 1})
    assert files_of(store)["hip1.png"]["detector"] == "store"
    assert any("annotation: the store denies access" in problem for problem in flow.problems)
    flow, _ = ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP)
    assert (flow.accepted, flow.reused) == (3, False)


def test_an_archive_that_may_not_be_read_at_all_ends_the_ingest(tmp_path, monkeypatch) -> None:
    write_real_style(tmp_path / "a")
    withhold(monkeypatch, *(f"hip{number}.png" for number in range(3)))
    with pytest.raises(AccessDeniedError, match="access denied to all 3"):
        ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP)


def test_the_same_film_of_the_same_patient_counts_once(tmp_path) -> None:
    data = encode_dicom()
    write_files(tmp_path / "a", {"a.dcm": data, "b.dcm": data})
    flow, store = ingest(tmp_path, tmp_path / "a")
    assert (flow.found, flow.accepted, flow.refused) == (2, 1, {RefusalCode.DUPLICATE: 1})
    assert files_of(store)["b.dcm"]["code"] == RefusalCode.DUPLICATE


def test_copies_without_a_name_are_one_hip_unless_their_records_disagree(tmp_path) -> None:
    first, second = (encode_image(draw_hip(seed=seed)) for seed in (1, 2))
    named = draw_hip(seed=3)
    table = b"image,patient,side,t_score\nb.png,,left,-3\ne.png,P1,left,-1\nf.png,P2,left,-3\n"
    write_files(tmp_path / "a", {
        "a.png": first, "b.png": first, "c.png": first, "e.png": second, "f.png": second,
        "g.png": encode_image(named), "h.dcm": encode_dicom(named.astype("uint16") * 16),
        "t.csv": table,
    })  # fmt: skip
    flow, store = ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP)
    manifest = read_manifest(store)
    assert flow.refused == {RefusalCode.DUPLICATE: 3}
    assert (len(manifest), manifest["patient_id"].nunique()) == (4, 4)
    assert manifest["label_t_score_total_hip"].tolist()[:3] == [True, False, True]


def test_a_copy_without_a_name_but_with_another_label_is_told(tmp_path) -> None:
    film = encode_image(draw_hip())
    table = b"image,t_score\na.png,-3\nb.png,-1\n"
    write_files(tmp_path / "a", {"a.png": film, "b.png": film, "t.csv": table})
    flow, _ = ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP)
    assert flow.accepted == 2
    assert any("with another label" in problem for problem in flow.problems)


def test_the_same_film_under_another_patient_stays_for_the_leak_guard_to_find(tmp_path) -> None:
    write_files(tmp_path / "a", {"a.dcm": encode_dicom(), "b.dcm": encode_dicom(PatientID="other")})
    flow, store = ingest(tmp_path, tmp_path / "a")
    manifest = read_manifest(store)
    assert flow.accepted == 2
    assert manifest["pixel_sha256"].nunique() == 1
    assert manifest["patient_id"].nunique() == 2


def test_a_file_beyond_the_size_limit_is_refused_unread(tmp_path) -> None:
    write_files(tmp_path / "a", {"a.dcm": encode_dicom(), "b.dcm": encode_dicom() + b" " * 400_000})
    _, store = ingest(tmp_path, tmp_path / "a", limits=ImageLimits(max_file_bytes=300_000))
    row = files_of(store)["b.dcm"]
    assert (row["code"], row["detector"]) == (RefusalCode.TOO_LARGE, "file_size")


def test_an_archive_without_films_is_a_data_error(tmp_path) -> None:
    write_files(tmp_path / "a", {"dxa.csv": b"image,t_score\n"})
    with pytest.raises(DataError, match=r"expected films in .* found 1 files, none a film"):
        ingest(tmp_path, tmp_path / "a")


def test_two_tables_beside_the_films_must_be_chosen_between(tmp_path) -> None:
    write_real_style(tmp_path / "a")
    write_files(tmp_path / "a", {"old.csv": (tmp_path / "a/scores.csv").read_bytes()})
    write_files(tmp_path / "a", {"._old.csv": b"what macOS leaves beside a file"})
    with pytest.raises(DataError, match=r"found old.csv, scores.csv; say which one with --labels"):
        ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP)
    labels = str(tmp_path / "a" / "scores.csv")
    flow, _ = ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP, labels=labels)
    assert flow.accepted == 3


def test_films_without_any_table_are_accepted_without_labels(tmp_path) -> None:
    write_files(tmp_path / "a", {"a.dcm": encode_dicom()})
    flow, store = ingest(tmp_path, tmp_path / "a")
    assert flow.problems == ["no DXA table was found: every label is missing"]
    assert read_manifest(store)["label_t_score_total_hip"].isna().all()


def test_labelme_files_in_a_folder_of_their_own_are_found_by_the_path_they_name(tmp_path) -> None:
    shape = {"label": "total hip", "points": [[20, 20], [200, 20], [200, 200], [20, 200]]}

    def outline(path):
        return json.dumps({"shapes": [shape], "imagePath": path}).encode()

    film = encode_dicom()
    write_files(tmp_path / "a", {
        "images/a.dcm": film, "images/b.dcm": film, "images/c.dcm": film, "d.dcm": film,
        "labels/1.json": outline("../images/a.dcm"),
        "labels/2.json": outline("..\\images\\b.dcm"),
        "labels/3.json": outline("C:/films/c.dcm"),
        "labels/4.json": outline(None),
        "d.JSON": outline("renamed.dcm"),
        "dxa.json": b'[{"image": "a.dcm", "total_hip_t_score": -3}]',
    })  # fmt: skip
    config = IngestRun(images=str(tmp_path / "a"))
    listing = archive.list_archive(open_store(config.images), config)
    assert listing.annotations == {
        "images/a.dcm": "labels/1.json", "images/b.dcm": "labels/2.json", "d.dcm": "d.JSON",
    }  # fmt: skip
    assert (listing.strays, listing.tables) == (2, ["dxa.json"])


def test_contours_of_two_files_for_one_film_are_none(tmp_path) -> None:
    note = json.dumps({"shapes": [], "imagePath": "../a.dcm"}).encode()
    write_files(tmp_path / "a", {"a.dcm": encode_dicom(), "x/1.json": note, "y/1.json": note})
    flow, _ = ingest(tmp_path, tmp_path / "a")
    assert flow.annotations == 0
    assert any("2 labelme files belong to no film" in problem for problem in flow.problems)


def test_a_broken_annotation_costs_the_masks_and_not_the_film(tmp_path) -> None:
    write_files(tmp_path / "a", {"a.dcm": encode_dicom(), "a.json": b"{"})
    flow, store = ingest(tmp_path, tmp_path / "a")
    assert (flow.accepted, flow.annotations) == (1, 0)
    assert any("no valid JSON" in problem for problem in flow.problems)
    assert read_manifest(store)["mask_key_total_hip"].isna().all()


def test_a_corrected_annotation_is_another_mask(tmp_path) -> None:
    config = PhantomConfig(seed=1, n_patients=1, n_second_hips=0, n_device_a=0, image_px=128,
                           exact_prevalence=False)  # fmt: skip
    archive = write_archive(tmp_path / "a", config)
    _, store = ingest(tmp_path, archive.folder)
    before = read_manifest(store).iloc[0]
    path = next((archive.folder / "films").glob("*.json"))
    content = json.loads(path.read_text())
    for shape in content["shapes"]:
        shape["points"] = [[x, y * 0.9] for x, y in shape["points"]]
    path.write_text(json.dumps(content))
    flow, _ = ingest(tmp_path, archive.folder)
    after = read_manifest(store).iloc[0]
    assert not flow.reused
    assert after["hip_id"] == before["hip_id"]
    # what was decoded or trained from the old mask must not be taken for the new one
    assert after["mask_key_total_hip"] != before["mask_key_total_hip"]


def test_the_contact_sheet_is_a_picture_of_the_accepted_hips(small_workspace) -> None:
    sheet = decode(small_workspace.store, SHEET_KEY)
    assert sheet.shape[2] == 3
    assert sheet.std() > 10


def test_png_phantoms_find_their_records_by_file_name(tmp_path) -> None:
    config = PhantomConfig(seed=2, n_patients=2, n_second_hips=0, n_device_a=0, image_px=128,
                           exact_prevalence=False, film_format=FilmFormat.PNG)  # fmt: skip
    archive = write_archive(tmp_path / "a", config)
    flow, store = ingest(tmp_path, archive.folder)
    assert (flow.accepted, flow.annotations) == (2, 2)
    manifest = read_manifest(store)
    assert manifest["label_t_score_total_hip"].notna().all()
    assert set(manifest["side"]) == {study.sides[0] for study in archive.studies}


def test_a_workspace_inside_the_archive_is_refused_since_its_hips_would_be_films(tmp_path) -> None:
    write_files(tmp_path / "a", {"a.dcm": encode_dicom()})
    with pytest.raises(ConfigError, match="expected a workspace outside of the archive"):
        ingest(tmp_path / "a", tmp_path / "a")


def test_what_lies_in_hidden_folders_is_no_film(tmp_path) -> None:
    film = encode_image(draw_hip())
    write_files(tmp_path / "a", {"a.png": film, ".ipynb_checkpoints/a-checkpoint.png": film})
    flow, store = ingest(tmp_path, tmp_path / "a")
    assert (flow.found, list(files_of(store))) == (1, ["a.png"])


def test_a_table_that_names_neither_films_nor_patients_is_refused_with_its_columns(
    tmp_path,
) -> None:
    films = {f"{n}.png": encode_image(draw_hip(seed=n)) for n in range(3)}
    table = b"Bild;T-Score;Age\n0.png;-2,5;70\n1.png;-1;60\n"
    write_files(tmp_path / "a", {**films, "t.csv": table})
    with pytest.raises(DataError, match="columns not used: 'Bild'"):
        ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP)


def test_t_score_labels_of_people_too_young_for_them_are_told(tmp_path) -> None:
    films = {f"{n}.png": encode_image(draw_hip(seed=n)) for n in range(3)}
    table = b"image,age,t_score\n0.png,45,-2.6\n1.png,50,-2.6\n2.png,,-1\n"
    write_files(tmp_path / "a", {**films, "t.csv": table})
    flow, _ = ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP)
    (line,) = [problem for problem in flow.problems if "ISCD" in problem]
    assert line.startswith("1 hips of people below 50 have a T-score label")


def test_records_of_films_that_are_not_there_are_told(tmp_path) -> None:
    films = {f"{n}.png": encode_image(draw_hip(seed=n)) for n in range(3)}
    table = b"image,t_score\n0.png,-3\n1.png,-1\n2.png,-1\nlost.png,-2\nfilms/gone.png,-2\n"
    write_files(tmp_path / "a", {**films, "t.csv": table})
    flow, _ = ingest(tmp_path, tmp_path / "a", region=Region.TOTAL_HIP)
    (line,) = [problem for problem in flow.problems if "not in the archive" in problem]
    assert line.startswith("2 records of the table name films")
