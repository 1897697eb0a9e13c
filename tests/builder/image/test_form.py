"""Annotations and other wishes as people write them."""

import pytest

from builder.errors import UsageError
from builder.image.form import folder_of, parse_annotations
from builder.request import Annotation
from registry.oci.platform import Platform

ARM64 = Platform("linux", "arm64")


@pytest.mark.parametrize(
    ("text", "annotations"),
    [
        ("a=b", [Annotation("manifest", None, "a", "b")]),
        ("a.B/c=d=e:f", [Annotation("manifest", None, "a.B/c", "d=e:f")]),
        ("index:a=b", [Annotation("index", None, "a", "b")]),
        ("index,manifest:a=b", [Annotation("index", None, "a", "b"), Annotation("manifest", None, "a", "b")]),
        ("manifest[linux/arm64]:a=b", [Annotation("manifest", ARM64, "a", "b")]),
        ("manifest-descriptor:a=", [Annotation("manifest-descriptor", None, "a", "")]),
    ],
)
def test_annotation_option_names_levels_and_platforms(text, annotations):
    """The part before the first colon of the name says where the annotation goes."""
    assert list(parse_annotations(text)) == annotations


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "not a name and a value: `a`"),
        ("=b", "not a name and a value: `=b`"),
        ("image:a=b", "unknown level of an annotation, image: `image:a=b`"),
        ("Index:a=b", "not a level: `Index`"),
    ],
)
def test_annotation_that_cannot_be_is_explained(text, message):
    """What is wrong is shown as it was written."""
    with pytest.raises(UsageError) as caught:
        parse_annotations(text)

    assert message in caught.value.message


def test_folder_of_a_platform_joins_its_parts():
    """Folders are named as BuildKit names them."""
    assert folder_of(Platform("linux", "arm", "v7")) == "linux_arm_v7"
