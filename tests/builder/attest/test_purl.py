"""Package URLs of images."""

import pytest

from builder.attest.purl import image_purl, source_purl
from registry.oci.platform import Platform
from registry.oci.reference import parse_reference

DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("name", "platform", "purl"),
    [
        ("alpine", "amd64", "pkg:docker/alpine@latest?platform=linux%2Famd64"),
        ("moby/buildkit:1", "arm64", "pkg:docker/moby/buildkit@1?platform=linux%2Farm64"),
        ("localhost:5000/team/app:1", "amd64", "pkg:docker/localhost%3A5000/team/app@1?platform=linux%2Famd64"),
        (f"alpine@{DIGEST}", "amd64", f"pkg:docker/alpine?digest={DIGEST}&platform=linux%2Famd64"),
        (f"alpine:3@{DIGEST}", "amd64", f"pkg:docker/alpine@3?digest={DIGEST}&platform=linux%2Famd64"),
    ],
)
def test_purl_of_an_image_is_that_of_buildkit(name, platform, purl):
    """Short names stay short, the host of a registry is quoted, a digest is a qualifier."""
    assert image_purl(parse_reference(name), Platform("linux", platform)) == purl


def test_purl_has_the_platform_in_its_usual_form():
    """A variant that every machine has is left out."""
    assert image_purl(parse_reference("a"), Platform("linux", "arm64", "v8")).endswith("?platform=linux%2Farm64")


@pytest.mark.parametrize(
    ("text", "purl"),
    [
        ("alpine:3", "pkg:docker/alpine@3?platform=linux%2Famd64"),
        ("/home/alice/secret/layout:1", "pkg:oci/layout@1?platform=linux%2Famd64"),
        (f"/home/alice/layout@{DIGEST}", f"pkg:oci/layout?digest={DIGEST}&platform=linux%2Famd64"),
        ("/home/alice/layout", "pkg:oci/layout?platform=linux%2Famd64"),
    ],
)
def test_purl_of_a_layout_tells_no_path(text, purl):
    """Where a layout lies on the machine that built is nobody's business."""
    assert source_purl(text, Platform("linux", "amd64")) == purl
