"""The page for a person: one file that asks the interface, with the vocabulary in plain words.

It carries nothing of a release or a patient, so it needs no token. Its policy (CSP level 3) allows
this very style and script by their hashes and requests to its own origin only.
"""

import json
import re
from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import resources

from hipray import RESEARCH_NOTICE
from hipray.data.contours import CONTOUR_COLOURS
from hipray.vocab import REGIONS, Finding, LabelType, RefusalCode

PLACE_OF_WORDS = "{{ words }}"

REFUSALS: dict[RefusalCode, str] = {
    RefusalCode.UNREADABLE: "this file could not be read as an image",
    RefusalCode.TOO_LARGE: "the image is larger than this service accepts",
    RefusalCode.TOO_SMALL: "the image has too few pixels to show the structure of bone",
    RefusalCode.NOT_AN_IMAGE: "this DICOM file holds no image",
    RefusalCode.WRONG_MODALITY: "this is another kind of image than a radiograph",
    RefusalCode.NOT_A_RADIOGRAPH: "this does not look like a radiograph",
    RefusalCode.WRONG_BODY_PART: "the file says that it shows another part of the body",
    RefusalCode.WRONG_VIEW: "the file says that it shows another view than from the front",
    RefusalCode.MULTI_FRAME: "the file holds several images",
    RefusalCode.IMPLANT: "there is metal, such as a joint replacement, in the hip",
    RefusalCode.REGION_MISSING: "a region of the hip could not be found on it",
    RefusalCode.IMPLAUSIBLE_GEOMETRY: "the regions found on it do not lie as in a hip",
    RefusalCode.DECODER_CRASH: "reading the file took too much time or memory",
    RefusalCode.DUPLICATE: "the same image came before",
    RefusalCode.MISSING_OBJECT: "there is no such file",
    RefusalCode.CHANGED_OBJECT: "the file changed while it was read",
}

FINDINGS: dict[Finding, str] = {
    Finding.VIEW_UNSTATED: "The file does not say which view it shows.",
    Finding.WRONG_VIEW_SUSPECTED: "This may be another view than from the front.",
    Finding.SIDE_UNKNOWN: "It is not known which side this shows.",
    Finding.SIDE_CONTRADICTED: "The side that was given is not the one that the file states.",
    Finding.SPACING_UNKNOWN: "The size of a pixel is not known.",
    Finding.POLARITY_INVERTED: "The image was stored with black and white exchanged.",
    Finding.LOW_CONTRAST: "The contrast is low.",
    Finding.BURNED_IN_TEXT: "There may be text in the image.",
    Finding.METAL_SUSPECTED: "There may be metal in the image.",
    Finding.LOW_MASK_CONFIDENCE: "The outline of a region is uncertain.",
    Finding.BIT_DEPTH_8: "The image has 256 grey values only.",
    Finding.BODY_PART_UNSTATED: "The file does not say which part of the body it shows.",
    Finding.PELVIS_SUSPECTED: "This was taken as one hip and may show both.",
}

LABELS: dict[LabelType, str] = {
    LabelType.T_SCORE: "would be abnormal by T-score",
    LabelType.BMD: "would be abnormal by bone mineral density",
}


@dataclass(frozen=True)
class Page:
    """The page and the policy that it is sent with."""

    html: str
    policy: str


@cache
def build_page() -> Page:
    """Return the page with its words filled in."""
    raw = resources.files("hipray.serving").joinpath("page.html").read_text("utf-8")
    # '<' would end the script element that carries the words
    html = raw.replace(PLACE_OF_WORDS, json.dumps(_words()).replace("<", "\\u003c"))
    return Page(html, _policy_of(html))


def _words() -> dict[str, object]:
    return {
        "notice": RESEARCH_NOTICE,
        "phantom": "PHANTOM RELEASE: trained on generated films, meaningless for people",
        "unauthorized": "This service needs a valid access token.",
        "heat": "Bright where all networks see most of what speaks for an abnormal hip (Grad-CAM).",
        "labels": LABELS,
        "refusals": REFUSALS,
        "findings": FINDINGS,
        "regions": {
            region: {
                "name": region.display_name,
                "colour": "rgb({}, {}, {})".format(*CONTOUR_COLOURS[region]),
            }
            for region in REGIONS
        },
    }


def _policy_of(html: str) -> str:
    rules = {
        "default-src": "'none'",
        "script-src": hash_of(html, "script"),
        "style-src": hash_of(html, "style"),
        "img-src": "data:",
        "connect-src": "'self'",
        "form-action": "'none'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def hash_of(html: str, element: str) -> str:
    """Return the source expression of a page's one element of this name without attributes."""
    (content,) = re.findall(rf"<{element}>(.*?)</{element}>", html, re.DOTALL)
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"
