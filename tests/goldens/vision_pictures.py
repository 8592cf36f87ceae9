"""The small test pictures behind vision.json: every kind of JPEG and PNG that edge-vision reads.

Everything is procedural, so the set can be made again and nobody's rights are touched.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def scene(width, height, channels=3, seed=0):
    """A picture with gradients, discs, an edge and noise, shape (height, width, channels), uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = []
    for c in range(channels):
        p = 90 + 60 * np.sin(x / (7 + 5 * c) + seed) + 70 * y / max(height - 1, 1)
        cx, cy, r = width * (0.3 + 0.2 * c), height * (0.6 - 0.15 * c), min(width, height) * 0.3
        p += 90 * ((x - cx) ** 2 + (y - cy) ** 2 < r * r)
        p -= 80 * (x * 2 > y + width)
        p += rng.normal(0, 6, (height, width))
        planes.append(np.clip(p, 0, 255))
    return np.stack(planes, -1).astype(np.uint8)


# ---------------------------------------------------------------- JPEG


def jpeg(pixels, mode=None, **options):
    image = Image.fromarray(pixels if pixels.shape[-1] != 1 else pixels[..., 0], mode)
    out = io.BytesIO()
    image.save(out, "JPEG", **options)
    return out.getvalue()


def segments(data):
    """Yields (marker, offset, length including the marker) up to and with the start of the scan."""
    at = 2
    while True:
        marker = data[at + 1]
        length = 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
        yield marker, at, length
        if marker == 0xDA:
            return
        at += length


def without(data, marker):
    """The JPEG without its segments of one kind."""
    out, last = bytearray(data[:2]), 2
    for found, at, length in segments(data):
        if found != marker:
            out += data[at : at + length]
        last = at + length
    return bytes(out + data[last:])


def patched_frame(data, factors=None, swap=False):
    """Changes the first component's sampling factors, and exchanges the sides so that the block count stays."""
    out = bytearray(data)
    for marker, at, _ in segments(data):
        if marker in (0xC0, 0xC2):
            if swap:
                out[at + 5 : at + 9] = data[at + 7 : at + 9] + data[at + 5 : at + 7]
            if factors is not None:
                out[at + 11] = factors
    return bytes(out)


def with_orientation(data, value, big=False):
    order, magic = (">", b"MM\0*") if big else ("<", b"II*\0")
    tiff = magic + struct.pack(order + "IHHHIHHI", 8, 1, 0x0112, 3, 1, value, 0, 0)
    body = b"Exif\0\0" + tiff
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def jpegs():
    s = scene(75, 53)
    yield "grey.jpg", jpeg(scene(61, 47, 1))
    for name, sub in (("444", 0), ("422", 1), ("420", 2)):
        yield f"{name}.jpg", jpeg(s, quality=88, subsampling=sub)
    yield "440.jpg", patched_frame(jpeg(s, quality=88, subsampling=1), 0x12, swap=True)
    yield "420-large.jpg", jpeg(scene(331, 247, seed=3), quality=70, subsampling=2)
    yield "tall.jpg", jpeg(scene(90, 401, seed=4), quality=80, subsampling=2)
    yield "progressive.jpg", jpeg(s, quality=80, progressive=True)
    yield "progressive-444.jpg", jpeg(scene(130, 88, seed=5), quality=60, progressive=True, subsampling=0)
    yield "progressive-grey.jpg", jpeg(scene(61, 47, 1, seed=6), progressive=True)
    yield "restart.jpg", jpeg(scene(120, 90, seed=7), quality=75, restart_marker_blocks=3)
    yield "q1.jpg", jpeg(s, quality=1)
    yield "q100.jpg", jpeg(scene(40, 31, seed=8), quality=100, subsampling=0)
    yield "optimized.jpg", jpeg(s, optimize=True)
    cmyk = jpeg(scene(50, 41, 4, seed=9), "CMYK", quality=85)
    yield "cmyk.jpg", cmyk
    # The transform byte of the Adobe segment says whether the inks went through YCbCr.
    adobe = cmyk.index(b"Adobe")
    yield "ycck.jpg", cmyk[: adobe + 11] + b"\x02" + cmyk[adobe + 12 :]
    yield "cmyk-no-adobe.jpg", without(cmyk, 0xEE)
    yield "no-jfif.jpg", without(jpeg(s), 0xE0)
    yield "rgb.jpg", jpeg(s, keep_rgb=True)
    yield "no-huffman-tables.jpg", without(jpeg(s, quality=75), 0xC4)
    for w, h in ((1, 1), (1, 40), (40, 1), (8, 8), (9, 17), (16, 16), (17, 16), (2, 3)):
        yield f"{w}x{h}.jpg", jpeg(scene(w, h, seed=w + h), quality=90)
    turned = jpeg(scene(33, 21, seed=11), quality=80)
    for value in range(1, 9):
        yield f"orientation-{value}.jpg", with_orientation(turned, value, big=value % 2 == 0)
    yield "orientation-9.jpg", with_orientation(turned, 9)
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf tiff:Orientation="6"/></x:xmpmeta>'
    yield "orientation-xmp.jpg", turned[:2] + b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp + turned[2:]
    yield "trailing.jpg", jpeg(s) + b"after the end" * 9
    yield "padded-markers.jpg", turned[:2] + b"\xff\xff\xff" + turned[2:]
    yield "comment.jpg", jpeg(s, comment=b"a comment")
    out = io.BytesIO()
    Image.fromarray(s).save(out, "PNG")
    yield "png-inside.jpg", out.getvalue()


# ---------------------------------------------------------------- PNG


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def pack_rows(samples, depth):
    """(h, w, c) samples to packed rows of bytes."""
    h = samples.shape[0]
    flat = samples.reshape(h, -1)
    if depth == 16:
        return [row.astype(">u2").tobytes() for row in flat]
    if depth == 8:
        return [row.astype(np.uint8).tobytes() for row in flat]
    rows = []
    for row in flat:
        bits = ((row[:, None] >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8).reshape(-1)
        rows.append(np.packbits(bits).tobytes())
    return rows


def filtered(rows, bpp, first):
    """Rows with their filter bytes; the filters take turns, so that each is met."""
    out, previous = bytearray(), bytes(len(rows[0]) if rows else 0)
    for i, row in enumerate(rows):
        kind = (first + i) % 5
        out.append(kind)
        for j, value in enumerate(row):
            a = row[j - bpp] if j >= bpp else 0
            b = previous[j]
            c = previous[j - bpp] if j >= bpp else 0
            p = a + b - c
            pa, pb, pc = abs(p - a), abs(p - b), abs(p - c)
            paeth = a if pa <= pb and pa <= pc else b if pb <= pc else c
            out.append((value - (0, a, b, (a + b) // 2, paeth)[kind]) & 255)
        previous = row
    return bytes(out)


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(samples, color, depth, *, palette=None, trns=None, interlaced=False, extra=b"", idats=1, before=b""):
    samples = np.asarray(samples)
    if samples.ndim == 2:
        samples = samples[..., None]
    h, w, c = samples.shape
    bpp = max(1, c * depth // 8)
    if interlaced:
        body = b""
        for i, (x0, y0, dx, dy) in enumerate(ADAM7):
            part = samples[y0::dy, x0::dx]
            if part.size:
                body += filtered(pack_rows(part, depth), bpp, i)
    else:
        body = filtered(pack_rows(samples, depth), bpp, 0)
    data = zlib.compress(body, 9)
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, color, 0, 0, interlaced))
    out += before
    if palette is not None:
        out += chunk(b"PLTE", bytes(palette))
    if trns is not None:
        out += chunk(b"tRNS", bytes(trns))
    step = -(-len(data) // idats)
    for at in range(0, len(data), step):
        out += chunk(b"IDAT", data[at : at + step])
    return out + extra + chunk(b"IEND", b"")


def pngs():
    rng = np.random.default_rng(5)
    grey = scene(45, 34, 1, seed=21)[..., 0]
    for depth in (1, 2, 4, 8):
        yield f"grey{depth}.png", png(grey >> (8 - depth), 0, depth)
        yield f"grey{depth}-interlaced.png", png(grey >> (8 - depth), 0, depth, interlaced=True)
        yield f"grey{depth}-trns.png", png(grey >> (8 - depth), 0, depth, trns=[0, 1])
        count = min(1 << depth, 200)
        palette = rng.integers(0, 256, count * 3).tolist()
        index = (grey >> (8 - depth)) % count
        yield f"palette{depth}.png", png(index, 3, depth, palette=palette)
        yield f"palette{depth}-trns.png", png(index, 3, depth, palette=palette, trns=[0, 128][: min(count, 2)])
        yield f"palette{depth}-one-clear.png", png(index, 3, depth, palette=palette, trns=[255, 0][: min(count, 2)])
        yield f"palette{depth}-interlaced.png", png(index, 3, depth, palette=palette, interlaced=True)
    yield "palette-short.png", png(grey >> 3, 3, 8, palette=rng.integers(0, 256, 60).tolist())
    rgb, rgba, la = scene(41, 29, 3, seed=22), scene(41, 29, 4, seed=23), scene(41, 29, 2, seed=24)
    for kind, color, samples in (("rgb", 2, rgb), ("rgba", 6, rgba), ("la", 4, la)):
        yield f"{kind}8.png", png(samples, color, 8)
        yield f"{kind}8-interlaced.png", png(samples, color, 8, interlaced=True)
        wide = samples.astype(np.uint16) * 256 + rng.integers(0, 256, samples.shape)
        yield f"{kind}16.png", png(wide, color, 16)
        yield f"{kind}16-interlaced.png", png(wide, color, 16, interlaced=True)
    yield "rgb8-trns.png", png(rgb, 2, 8, trns=[0, 10, 0, 20, 0, 30])
    yield "rgb8-many-idats.png", png(rgb, 2, 8, idats=37)
    yield "rgb8-late-text.png", png(rgb, 2, 8, extra=chunk(b"tEXt", b"Comment\0late"))
    yield "rgb8-gamma.png", png(rgb, 2, 8, before=chunk(b"gAMA", struct.pack(">I", 100000)))
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    yield "rgb8-exif.png", png(rgb, 2, 8, extra=chunk(b"eXIf", tiff))
    for w, h in ((1, 1), (1, 40), (40, 1), (2, 3), (5, 5), (7, 9)):
        yield f"{w}x{h}.png", png(scene(w, h, seed=w * h), 2, 8)
        yield f"{w}x{h}-interlaced.png", png(scene(w, h, seed=w * h), 2, 8, interlaced=True)
    frames = [Image.fromarray(scene(24, 18, seed=30 + i)) for i in range(3)]
    out = io.BytesIO()
    frames[0].save(out, "PNG", save_all=True, append_images=frames[1:], duration=50)
    yield "apng.png", out.getvalue()
    out = io.BytesIO()
    frames[0].save(out, "PNG", save_all=True, append_images=frames[1:], default_image=True)
    yield "apng-default.png", out.getvalue()


def refused():
    """Files that are no picture, or none that is read: (name, bytes, words the error must hold)."""
    grey16 = scene(9, 7, 1)[..., 0].astype(np.uint16) * 256
    yield "grey16.png", png(grey16, 0, 16), "16-bit grey"
    yield "empty.jpg", b"", "empty"
    yield "text.jpg", b"This is not a picture, whatever its name says.\n", "no picture"
    for kind in ("GIF", "BMP", "WEBP", "TIFF"):
        out = io.BytesIO()
        Image.fromarray(scene(6, 5)).save(out, kind)
        yield f"{kind.lower()}.jpg", out.getvalue(), {"WEBP": "WebP"}.get(kind, kind)
    huge = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", huge) + chunk(b"IDAT", zlib.compress(bytes(4000))) + chunk(b"IEND", b"")
    yield "huge.png", b"\x89PNG\r\n\x1a\n" + body, "20000x20000"
    small = jpeg(scene(16, 16))
    for marker, at, _ in segments(small):
        if marker == 0xC0:
            yield "huge.jpg", small[: at + 5] + struct.pack(">HH", 20000, 20000) + small[at + 9 :], "20000x20000"
    bad = bytearray(png(scene(9, 7), 2, 8))
    bad[20] ^= 1
    yield "bad-crc.png", bytes(bad), "CRC"
    yield "zero-width.png", png(np.zeros((4, 4, 3)), 2, 8)[:16] + bytes(4) + png(np.zeros((4, 4, 3)), 2, 8)[20:], "broken"
