"""Files and folders that are written whole or not at all, also where the process or the disk fails meanwhile."""

from moco_rt.storage.files import replacing_file
from moco_rt.storage.folders import complete_replacing, replacing_folder

__all__ = ["complete_replacing", "replacing_file", "replacing_folder"]
