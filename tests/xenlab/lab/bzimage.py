# SPDX-License-Identifier: Apache-2.0
"""The kernel inside a bzImage (x86 boot protocol 2.08 or newer). An emulated CPU would need seconds to decompress it."""
import lzma
import struct
import subprocess
import zlib

from lab.common import LabError


def _decompress(data):
    if data.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(data)   # stops at the end of the stream: the image's size follows
    if data.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31).decompress(data)
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        return subprocess.run(["zstd", "-dc"], input=data[:-4], stdout=subprocess.PIPE, check=True).stdout
    raise LabError(f"the kernel image is compressed in an unknown way ({data[:6]!r})")


def extract(source, target):
    with open(source, "rb") as file:
        image = file.read()
    if image[0x202:0x206] != b"HdrS":
        raise LabError(f"{source} is not a bzImage")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    kernel = _decompress(image[start:start + length])
    if kernel[:4] != b"\x7fELF":
        raise LabError(f"{source} does not contain an ELF kernel")
    with open(target, "wb") as file:
        file.write(kernel)
