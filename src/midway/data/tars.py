"""Members of tar files, such as WebDataset's shards, as files that are read in place."""

import tarfile

from midway.data.file_part import member_location
from midway.data.files import FoundFile, open_binary
from midway.errors import MidwayError, one_line

_SUFFIX = ".tar"


def is_tar(name: str) -> bool:
    """Return whether a file is a tar file without compression, by its name."""
    return name.lower().endswith(_SUFFIX)


def find_members(tar: FoundFile, *, prefix: bool) -> list[FoundFile]:
    """Return the regular files in a tar file; only their headers are read.

    Names that start with a dot are ignored. Of several files of one name, the last one counts.

    Args:
        tar: File without compression; over a network, one block is fetched for each member.
        prefix: If True, names start with the name of the tar file.

    Raises:
        MidwayError: The file is damaged, or cannot be read.
    """
    found: dict[str, FoundFile] = {}
    start = f"{tar.name}/" if prefix else ""
    try:
        with open_binary(tar.location) as file, tarfile.open(fileobj=file, mode="r:") as members:
            for member in members:
                name = member.name.removeprefix("./").lstrip("/")
                is_hidden = any(part.startswith(".") for part in name.split("/"))
                if not member.isreg() or member.issparse() or is_hidden:
                    continue
                location = member_location(tar.location, member.offset_data, member.size, name)
                modified = f"{tar.modified} {member.offset_data}"
                found[name] = FoundFile(location, start + name, member.size, modified)
            # tarfile takes a damaged header for the end, which is a block of zeros or of the file.
            file.seek(members.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError(f"damaged header at byte {members.offset}")
    except (OSError, tarfile.TarError, ValueError, EOFError) as error:
        raise MidwayError(
            f"{tar.location}: cannot be read as a tar file ({one_line(error)}); copy it again, or "
            "extract it"
        ) from error
    return list(found.values())
