"""The door for images: what is taken, in which form it is opened, what is refused and by which words."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from moco_rt.inputs.images import (
    check_column,
    find_images,
    first_of_equal_images,
    iter_images,
    list_images,
    open_image,
    process_images,
    take_images,
)


@pytest.fixture
def picture():
    return Image.fromarray(np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3))


@pytest.fixture
def encoded(picture):
    written = io.BytesIO()
    picture.save(written, "png")
    return written.getvalue()


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ("photo.png", "images must be a sequence of images (got one str)"),
        ({"image": []}, "images must be a sequence of images (got one dict)"),
        ({"a.png", "b.png"}, "images must have an order (got set)"),
        (3, "images must be a sequence of images (got int)"),
        ([3], "images must hold Pillow images, uint8 arrays or paths (got int at place 0)"),
        (["a.png", None], "images must hold Pillow images, uint8 arrays or paths (got NoneType at place 1)"),
    ],
)
def test_what_holds_no_images_is_refused_in_a_line(one_line_error, images, words):
    with one_line_error(TypeError, words):
        list(iter_images(images))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([{"photo": "a.png"}], "images must have 'image' in every row: column= names another (got photo at place 0)"),
        (
            np.zeros((1, 3, 8, 8), np.uint8),
            "images must be uint8 arrays of shape (height, width) or (height, width, channels) "
            "(got uint8 (3, 8, 8) at place 0)",
        ),
        (
            [np.zeros((8, 8, 3), np.float32)],
            "images must be uint8 arrays of shape (height, width) or (height, width, channels) "
            "(got float32 (8, 8, 3) at place 0)",
        ),
    ],
)
def test_rows_and_arrays_of_another_form_are_refused_in_a_line(one_line_error, images, words):
    with one_line_error(ValueError, words):
        list(iter_images(images))


def test_a_list_is_checked_at_once_and_an_iterator_as_it_is_read(one_line_error):
    with one_line_error(TypeError, "at place 1"):
        take_images(["a.png", 3])
    with one_line_error(ValueError, "images must hold at least one image (got none)"):
        take_images([])
    taken = take_images(iter(["a.png", 3]))
    assert next(taken) == "a.png"
    with one_line_error(TypeError, "at place 1"):
        next(taken)


def test_a_list_of_images_holds_at_least_one(one_line_error):
    assert list_images(iter(["a.png", "b.png"])) == ["a.png", "b.png"]
    with one_line_error(ValueError, "images must hold at least one image (got none)"):
        list_images(iter([]))


def test_a_folder_holds_the_images_in_it_and_in_folders_within(tmp_path, one_line_error):
    with one_line_error(NotADirectoryError, f"{tmp_path / 'none'} must be a folder of images (got none)"):
        find_images(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("no image")
    with one_line_error(ValueError, f"{tmp_path} must hold images (got no file that ends in .jpg, "):
        find_images(tmp_path)
    names = ["b.png", "a/z.JPG", "a/b/c.webp", "c.png"]
    for name in (*names, "._b.png", ".previews/b.png", "a/.trash/c/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["a/b/c.webp", "a/z.JPG", "b.png", "c.png"]
    assert len(find_images(tmp_path / ".previews")) == 1  # which was asked for


def test_a_column_is_one_name(one_line_error):
    assert check_column(None) is None
    assert check_column("photo") == "photo"
    with one_line_error(TypeError, "column must be the name of the one that holds the image (got ('a', 'b'))"):
        check_column(("a", "b"))


def test_images_are_equal_where_their_pixels_and_sizes_are(picture, encoded):
    pixels = np.asarray(picture)
    changed = pixels.copy()
    changed[0, 0, 0] += 1
    images = [picture, changed, pixels, {"bytes": encoded, "path": None}, pixels.reshape(4, 5, 3)]
    assert first_of_equal_images(images).tolist() == [0, 1, 0, 0, 4]


def test_columns_are_found_by_their_usual_names_or_by_the_one_that_is_given():
    assert list(iter_images([{"image": "a.png"}, {"img": "b.png"}])) == ["a.png", "b.png"]
    assert list(iter_images([{"image": "a.png", "photo": "b.png"}], "photo")) == ["b.png"]


def test_every_form_opens_to_the_same_picture(picture, encoded, tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(encoded)
    expected = np.asarray(picture)
    dicts = ({"bytes": encoded, "path": None}, {"bytes": None, "path": str(path)}, {"path": str(path)})
    for image in (picture, expected, path, str(path), *dicts):
        assert np.array_equal(np.asarray(open_image(image)), expected)
    with path.open("rb") as file:
        assert np.array_equal(np.asarray(open_image(Image.open(file))), expected)


@pytest.mark.parametrize(("channels", "mode"), [(None, "RGB"), (1, "L"), (3, "RGB"), (4, "RGBA")])
def test_a_picture_gets_the_channels_that_the_model_takes(picture, channels, mode):
    for image in (picture, np.zeros((3, 4), np.uint8), np.zeros((3, 4, 1), np.uint8), np.zeros((3, 4, 4), np.uint8)):
        assert open_image(image, channels).mode == mode


def test_a_picture_is_turned_as_its_camera_was_held(picture, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    picture.save(tmp_path / "turned.png", exif=exif)
    assert open_image(tmp_path / "turned.png").size == picture.size[::-1]


def test_what_cannot_be_opened_is_named(tmp_path, one_line_error):
    (tmp_path / "text.png").write_text("no image")
    with one_line_error(ValueError, f"images must be readable (got {tmp_path / 'missing.png'}: "):
        open_image(tmp_path / "missing.png")
    with one_line_error(ValueError, f"images must be readable (got {tmp_path / 'text.png'}: "):
        open_image(tmp_path / "text.png")
    with one_line_error(ValueError, "images must be readable (got one dict: "):
        open_image({"bytes": b"no image", "path": None})


def test_an_image_processor_must_make_one_tensor_of_all_images(picture, one_line_error):
    def processor(images, return_tensors):
        assert return_tensors == "pt"
        return {"pixel_values": torch.ones(len(images), 3, 2, 2, dtype=torch.float64)}

    assert process_images(processor, [picture, picture], 3).dtype == torch.float32
    with one_line_error(ValueError, "image_processor must make one tensor of shape (images, ...) of them (got list)"):
        process_images(lambda **_: {"pixel_values": []}, [picture], 3)
    with one_line_error(ValueError, "image_processor must take the images (got KeyError: 'pixel_values')"):
        process_images(lambda **_: {}, [picture], 3)


def test_pillow_is_imported_when_an_image_is_opened():
    code = "import sys, moco_rt.inputs.images; assert not any(name.split('.')[0] == 'PIL' for name in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_pillow_the_error_says_what_to_type(picture, monkeypatch, one_line_error):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with one_line_error(ImportError, "Pillow must be installed to open images (pip install pillow)"):
        open_image(picture)
