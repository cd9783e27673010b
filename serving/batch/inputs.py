"""Files, folders, globs and manifests become a table of clips, before any work. Knows nothing of what is in a clip.

    clips/  'clips/*.mp4'  s3://bucket/clips           the videos there
    manifest.csv  manifest.parquet  manifest.jsonl     a column `path`; the others are carried through to the output

A path in a manifest counts from the manifest's folder.
"""

import glob
import os
from collections.abc import Iterator, Sequence
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

from serving.batch.clips import FILE, PATH, Sized, first_of_each, own_columns
from serving.batch.manifests import is_manifest, read_manifest
from serving.batch.places import Place, in_words, inside, is_url, joined, parted, plain, without_secrets
from serving.batch.rows import INDEX
from vidseq.errors import OptionError

VIDEO_SUFFIXES = (".avi", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mts", ".ts", ".webm")

_GLOB = frozenset("*[")


def find_clips(inputs: Sequence[str]) -> pa.Table:
    """The clips that the inputs stand for, in the order of their paths, each once.

    A folder stands for the videos in it at any depth, by their suffix; a file, and what a glob finds, for itself.

    Returns:
        the columns `INDEX`, from 0, `PATH`, `FILE` and `NUM_BYTES`, and those that manifests bring.

    Raises:
        OptionError: one of the inputs stands for nothing, or is a manifest that cannot be used.
    """
    if not inputs:
        raise OptionError("name at least one clip, folder, glob or manifest to score")
    items = [plain(item) for item in inputs]
    listed = [read_manifest(item) for item in items if is_manifest(item)]
    found = [own_columns(_expand(item)) for item in items if not is_manifest(item)]
    _refuse_named_twice(listed)
    try:
        clips = pa.concat_tables([*listed, *found], promote_options="permissive")
        pq.write_table(clips.slice(0, 0), BytesIO())
    except pa.ArrowException as error:
        raise OptionError(f"the manifests' columns cannot be kept together: {error}") from None
    clips = clips.filter(pa.array(first_of_each(clips[FILE].to_pylist()), pa.bool_())).sort_by(PATH)
    return clips.add_column(0, INDEX, pa.array(range(len(clips)), pa.int64()))


def _refuse_named_twice(manifests: Sequence[pa.Table]) -> None:
    """Raises OptionError: two manifests name one clip, and nobody knows which is right."""
    seen: set[bytes] = set()
    for manifest in manifests:
        files = manifest[FILE].to_pylist()
        if both := seen.intersection(files):
            raise OptionError(f"two manifests name {without_secrets(os.fsdecode(min(both)))!r}")
        seen.update(files)


def _expand(item: str) -> list[Sized]:
    if is_url(item):
        return _expand_url(item)
    if os.path.isdir(item):
        if found := list(_videos(item)):
            return [(name, None) for name in found]
        raise OptionError(f"there are no videos in {item!r} ({' '.join(VIDEO_SUFFIXES)})")
    if os.path.lexists(item):
        return [(item, None)]
    if matches := [path for path in glob.iglob(item, recursive=True) if not os.path.isdir(path)]:
        return [(name, None) for name in matches]
    raise OptionError(f"nothing matches {item!r}")


def _videos(folder: str) -> Iterator[str]:
    """Links to folders are followed, each folder is looked into once.

    Raises:
        OptionError: one of them cannot be looked into.
    """
    seen = set[tuple[int, int]]()
    for parent, folders, names in os.walk(folder, onerror=_refuse_unreadable, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if _is_video(name):
                yield os.path.join(parent, name)


def _refuse_unreadable(error: OSError) -> None:
    raise OptionError(f"the folder {error.filename!r} cannot be looked into: {error.strerror}") from None


def _is_video(name: str) -> bool:
    return name.lower().endswith(VIDEO_SUFFIXES) and not name.startswith(".")


def _expand_url(url: str) -> list[Sized]:
    """One listing tells the names and the sizes of all that lies there."""
    shown, place = without_secrets(url), Place.of(url)
    folder, pattern = _split_at_wildcard(url)
    try:
        if pattern:
            within = Place.of(folder).path
            found = place.files.glob(f"{within}/{pattern}", detail=True)
            found = {path: info for path, info in found.items() if not path.rpartition("/")[2].startswith(".")}
        elif place.files.isdir(place.path):
            folder, within = url, place.path
            found = place.files.find(place.path, detail=True)
            found = {path: info for path, info in found.items() if _is_video(path.rpartition("/")[2])}
        else:
            return [(url, place.files.info(place.path).get("size"))]
    except FileNotFoundError:
        return [(url, None)]  # its row will say so, as that of a clip which is there no more
    except Exception as error:  # of whatever library lists it
        raise OptionError(f"{shown!r} cannot be read: {in_words(error, url)}") from None
    clips = [
        (inside(folder, path.removeprefix(within).lstrip("/")), info.get("size"))
        for path, info in found.items()
        if info["type"] == "file"
    ]
    if not clips:
        raise OptionError(f"nothing matches {shown!r}" if pattern else f"there are no videos in {shown!r}")
    return clips


def _split_at_wildcard(url: str) -> tuple[str, str]:
    """The folder before the first name with a wildcard, and the rest, empty without one."""
    scheme, host, path, query = parted(url)
    names = path.split("/")
    first = next((number for number, name in enumerate(names) if _GLOB.intersection(name)), len(names))
    return joined(scheme, host, "/".join(names[:first]), query), "/".join(names[first:])
