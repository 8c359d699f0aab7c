"""The page for a person, in a real browser against a real server on loopback."""

import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from hipray import RESEARCH_NOTICE
from hipray.config.jobs import ServeRun
from hipray.releases.release import Release
from hipray.serving.access import HostCheck, TokenCheck
from hipray.serving.admission import Admission
from hipray.serving.api import build_api
from hipray.serving.graph import FusedGraph
from hipray.serving.ingress import build_service, by_value
from hipray.serving.page import REFUSALS, build_page
from hipray.serving.stages import FusedStage
from hipray.storage import Store
from hipray.vocab import REGIONS, RefusalCode
from tests.conftest import S3Server
from tests.serving.conftest import ONNX_ON_CPU, stage_setup, start_stage

TOKEN = "correct horse"
WAIT_MS = 60_000
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


@dataclass(frozen=True)
class Served:
    url: str
    films: Store
    """Where films may be named from."""


@pytest.fixture(scope="module")
def served(
    workspace: Store, matted: Release, s3_server: S3Server, films: list[bytes]
) -> Iterator[Served]:
    store = s3_server.new_store()
    store.write("in/film.dcm", films[0])
    config = ServeRun(
        readers=1, allowed_prefixes=(f"{store.uri}/in",), storage=s3_server.settings,
        token_sha256=(sha256(TOKEN.encode()).hexdigest(),),
    )  # fmt: skip
    # stages of its own: they belong to the server's event loop
    stage = start_stage(FusedStage, stage_setup(workspace, matted))
    graph = FusedGraph(matted.digest, by_value(stage), by_value(stage, "explain"))
    service = build_service(config, matted, ONNX_ON_CPU, graph)
    app = build_api(
        service,
        Admission(running=4, waiting=4),
        max_file_bytes=config.limits.max_file_bytes,
        check_token=TokenCheck(config.token_sha256),
        check_host=HostCheck(config.host),
    )
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Served(f"http://127.0.0.1:{port}", store)
    server.should_exit = True
    thread.join(20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield launched
        launched.close()


@dataclass
class Visit:
    """An open page, what it complained of and whom it asked."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def submit(self, *, token: str = TOKEN, **fields: str) -> str:
        """Fill in the form, send it, and return what the page then says."""
        self.page.fill("#token", token)
        for name, value in fields.items():
            self.page.fill(f"#{name}", value)
        self.page.click("#send")
        return self.wait()

    def wait(self) -> str:
        self.page.wait_for_selector("#send:not([disabled])", timeout=WAIT_MS)
        return self.page.inner_text("#status")

    def has_overflow(self) -> bool:
        return self.page.evaluate(
            "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        )


@pytest.fixture
def visit(browser: Any, served: Served) -> Iterator[Visit]:
    context = browser.new_context(viewport=PHONE)
    page = context.new_page()
    visit = Visit(page)
    page.on("console", lambda message: visit.complaints.append(message.text))
    page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    page.on("request", lambda request: visit.asked.append(request.url))
    page.goto(served.url)
    yield visit
    inside = (served.url, "data:")
    assert all(url.startswith(inside) for url in visit.asked)
    context.close()


def write_film(folder: Path, data: bytes) -> str:
    path = folder / "Doe^Jane.dcm"
    path.write_bytes(data)
    return str(path)


def test_an_uploaded_film_shows_its_contours_regions_and_origin(
    visit: Visit, films: list[bytes], tmp_path: Path, matted: Release
) -> None:
    visit.page.set_input_files("#file", write_film(tmp_path, films[-1]))
    assert visit.submit() == "Scored 2 hips."
    page = visit.page
    assert page.evaluate("document.getElementById('film').naturalWidth") > 100
    assert page.locator(".hip").count() == 2
    assert page.locator(".region").count() == 6
    answer = page.inner_text("#answer")
    assert "of 100 such hips would be abnormal by T-score" in answer
    assert "PHANTOM RELEASE" in answer
    assert matted.digest in answer
    assert "Headline" in answer
    (mirrored,) = page.locator(".mirrored").all_inner_texts()  # the other one is a left hip
    assert mirrored == "Mirrored: the right hip is shown as a left one, here and on its heat maps."
    assert "milliseconds" in answer.lower()
    assert page.locator(".notice").inner_text() == RESEARCH_NOTICE
    assert not visit.has_overflow()
    assert visit.complaints == []


def test_heat_maps_come_on_request(visit: Visit, films: list[bytes], tmp_path: Path) -> None:
    visit.page.set_input_files("#file", write_film(tmp_path, films[0]))
    visit.submit()
    assert visit.page.locator(".heat").count() == 0
    visit.page.click("#explain")
    visit.wait()
    assert visit.page.locator(".heat").count() == 3
    visit.page.evaluate("Promise.all([...document.images].map((image) => image.decode()))")
    assert visit.page.locator("#explain").count() == 0
    assert not visit.has_overflow()
    assert visit.complaints == []


def test_a_stored_film_is_scored_by_its_key_with_what_records_say(
    visit: Visit, served: Served
) -> None:
    said = visit.submit(uri=f"{served.films.uri}/in/film.dcm", age="71", weight_kg="60.5")
    assert said == "Scored 1 hip."
    assert visit.complaints == []


def test_a_refused_film_says_why_in_plain_words_and_by_its_code(
    visit: Visit, tmp_path: Path
) -> None:
    visit.page.set_input_files("#file", write_film(tmp_path, b"no film at all"))
    said = visit.submit()
    assert said == f"The film was refused: {REFUSALS[RefusalCode.UNREADABLE]}."
    assert "(unreadable)" in visit.page.inner_text(".refusal")
    assert visit.page.locator("#film").count() == 0
    assert ["422" in complaint for complaint in visit.complaints] == [True]  # the browser's own


def test_a_wrong_token_is_one_sentence(visit: Visit, films: list[bytes], tmp_path: Path) -> None:
    visit.page.set_input_files("#file", write_film(tmp_path, films[0]))
    assert visit.submit(token="wrong") == "This service needs a valid access token."
    assert visit.page.inner_text("#answer") == ""
    # Chromium itself notes the status of a failed request
    assert all("401" in complaint for complaint in visit.complaints)
    assert "wrong" not in str(visit.page.context.storage_state())


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("", "Choose a file or name a key first."),
        ("s3://elsewhere/film.dcm", "This service may not read from this uri."),
        ("film.dcm", "The uri must have the form s3://bucket/key."),
    ],
)
def test_what_cannot_be_done_is_one_sentence(visit: Visit, uri: str, sentence: str) -> None:
    assert visit.submit(uri=uri) == sentence


def test_a_dropped_file_is_taken(visit: Visit) -> None:
    visit.page.evaluate(
        """() => {
          const data = new DataTransfer();
          data.items.add(new File(["no film"], "film.dcm"));
          document.getElementById("drop").dispatchEvent(
            new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }"""
    )
    assert visit.submit().startswith("The film was refused")


def test_the_form_works_by_keyboard_and_every_field_has_a_name(visit: Visit) -> None:
    page = visit.page
    for control in page.locator("input, select").all():
        assert page.locator(f"label[for={control.get_attribute('id')}]").count() == 1
    assert page.get_attribute("#status", "aria-live") == "polite"
    page.focus("#uri")
    page.keyboard.type("film.dcm")
    page.focus("#token")
    page.keyboard.type(TOKEN)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "send"
    page.keyboard.press("Enter")
    page.locator("#status", has_text="the form s3://").wait_for(timeout=WAIT_MS)


CONTRAST = """() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
      .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = [...document.querySelectorAll("p, label, legend, h1, h2, h3, button, dt, dd, li")];
  return Math.min(...texts.filter((n) => n.innerText).map((node) => {
    const pair = [light(getComputedStyle(node).color), light(ground(node))].sort((a, b) => b - a);
    return (pair[0] + 0.05) / (pair[1] + 0.05);
  }));
}"""
"""The least contrast of a text to its ground (WCAG 2.2, relative luminance)."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP])
def test_texts_are_legible_and_nothing_overflows(
    visit: Visit, films: list[bytes], tmp_path: Path, scheme: str, viewport: dict[str, int]
) -> None:
    visit.page.emulate_media(color_scheme=scheme)
    visit.page.set_viewport_size(viewport)
    visit.page.set_input_files("#file", write_film(tmp_path, films[0]))
    visit.submit()
    assert visit.page.evaluate(CONTRAST) >= 4.5
    assert not visit.has_overflow()
    assert visit.page.locator(".notice").is_visible()


def test_the_page_needs_no_token_and_holds_nothing_of_the_release(
    served: Served, matted: Release
) -> None:
    answer = httpx.get(served.url)
    assert answer.headers["content-type"].startswith("text/html")
    assert matted.digest not in answer.text
    policy = answer.headers.get_list("content-security-policy")
    assert policy == [build_page().policy]
    assert "unsafe" not in policy[0]
    assert answer.headers["x-frame-options"] == "DENY"
    assert httpx.get(f"{served.url}/v1/models").status_code == 401


def test_the_page_says_in_words_which_hip_is_mirrored() -> None:
    assert "found.hips.filter((hip) => hip.flipped)" in build_page().html
    assert "hip is shown as a left one" in build_page().html


def test_the_page_names_every_region_and_no_other_host() -> None:
    html = build_page().html
    assert all(region.display_name in html for region in REGIONS)
    assert "http://" not in html
    assert "https://" not in html
