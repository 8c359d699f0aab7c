from pathlib import Path

import pytest

from hipray.config.jobs import ScoreRun
from hipray.data.images import read_hips
from hipray.data.manifest import read_table
from hipray.errors import BundleError, DataError
from hipray.pipeline import Pipeline, load_stages
from hipray.releases.release import Release
from hipray.scoring.decoder import ShardDecoder, build_row, list_open_shards
from hipray.scoring.parts import PREFIX
from hipray.scoring.scorer import BATCH_FILMS, OUTCOME_SCHEMA, ShardScorer, check_complete
from hipray.scoring.shards import freeze_shards
from hipray.storage import Store, open_store
from hipray.vocab import View
from tests.small_release import draw_phantoms, publish_small_release

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("work")))


@pytest.fixture(scope="module")
def release(workspace: Store) -> Release:
    return publish_small_release(workspace, view=View.WHOLE, segmenters=False)


@pytest.fixture(scope="module")
def films() -> dict[str, bytes]:
    return draw_phantoms(BATCH_FILMS + 2)


@pytest.fixture
def config(workspace: Store, films: dict[str, bytes], tmp_path: Path) -> ScoreRun:
    archive = open_store(str(tmp_path / "archive"))
    for key, data in films.items():
        archive.write(key, data)
    return ScoreRun(workspace=workspace.uri, images=archive.uri, output=str(tmp_path / "scores"))


def test_the_stages_give_the_numbers_of_the_pipeline(
    config: ScoreRun, workspace: Store, release: Release, films: dict[str, bytes]
) -> None:
    payload = config.model_dump_json()
    text = release.model_dump_json()
    decode, score = ShardDecoder(payload, text), ShardScorer(payload, text)
    (shard,) = list_open_shards(payload, frozenset())
    (outcome,) = score(decode(shard)).to_pylist()
    assert (outcome["files"], outcome["failure"]) == (len(films), None)
    output = open_store(str(config.output))
    (part,) = (i for i in output.list() if i.key.startswith(PREFIX))
    rows = read_table(output, part.key).to_pylist()
    pipeline = Pipeline(load_stages(workspace, release, verify=False))
    for key, data in films.items():
        (answer,) = pipeline.answer([read_hips(data, name=key)])
        (hip,) = answer.hips
        found = [row for row in rows if row["key"] == key]
        assert len(found) == len(hip.regions)
        assert hip.headline is not None
        for row, region in zip(found, hip.regions, strict=True):
            assert (row["region"], row["label_type"]) == (region.region, region.label_type)
            assert row["probability"] == pytest.approx(region.probability, abs=TOLERANCE)
            assert row["headline_probability"] == pytest.approx(
                hip.headline.probability, abs=TOLERANCE
            )


def test_finished_shards_are_not_listed_again(config: ScoreRun) -> None:
    payload = config.model_copy(update={"shard_files": 5}).model_dump_json()
    archive, output = open_store(config.images), open_store(str(config.output))
    ids = [shard.id for shard in freeze_shards(archive, output, shard_files=5)]
    assert len(list(list_open_shards(payload, frozenset(ids[1:])))) == 1


def test_a_release_that_does_not_load_is_a_bundle_error(config: ScoreRun, release: Release) -> None:
    lost = release.model_copy(
        update={
            "members": tuple(m.model_copy(update={"bundle": "0" * 64}) for m in release.members)
        }
    )
    scorer = ShardScorer(config.model_dump_json(), lost.model_dump_json())
    with pytest.raises(BundleError, match="000000"):
        scorer(build_row(OUTCOME_SCHEMA, {}))


def test_a_part_with_a_film_too_few_is_never_published(config: ScoreRun) -> None:
    archive, output = open_store(config.images), open_store(str(config.output))
    (shard,) = freeze_shards(archive, output, shard_files=64)
    keys = [{"key": entry.key} for entry in shard.entries]
    from hipray.scoring.rows import build_table

    check_complete(shard, build_table(keys))
    with pytest.raises(DataError, match="rows for the 18 films"):
        check_complete(shard, build_table(keys[1:]))
