"""What the page asks for beside the live image: of the scans on disk, and of earlier versions of the image.

    /scans?before=NAME&n=24          the newest scans, JSON
    /scans/NAME/probe?after=KEY      modes of the probe as they are now; 204 if KEY is still what there is
    /scans/NAME/pattern?frame=N      a diffraction pattern and the model's
    /scans/NAME/curves               error per epoch, correlation of halves, JSON
    /scans/NAME/thumbnail, /picture  the final image, small and whole
    /versions                        which versions of the live image are kept, JSON
    /versions/NAME/N                 one of them, as the live picture comes
    /file/NAME/N/MAP.tif, /image.cxi what a page shows of version N, as a file of numbers; with ?stored=1 of a
                                     picture from here

NAME may be "newest". All of it is read-only. Files are read, and arrays made, by one thread beside the loop
that serves the live image, so it takes at most one core however many browsers ask. What does so is imported
there at the first question: the page itself is there at once.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from aiohttp import web

from launch.page.picture import UNITS
from launch.page.scans.records import NotThereError, ScanRecord, ScanRecords
from launch.page.versions import VersionHistory
from stream.live.image import LiveImage
from stream.plain_json import plain_json

if TYPE_CHECKING:
    from launch.page.scans.scan_list import ScanList

Answer = TypeVar("Answer")
MOST_WAITING = 64  # questions; further ones are refused


class DataRoutes:
    """Answers what is asked about scans and versions.

    Parameters
    ----------
    records : ScanRecords or None
        None where the page has no folder: it then knows no scans.
    versions : VersionHistory
    held : callable
        Returns the live image of a scan and version that a page shows, or the newest of that scan; None where
        there is none.
    """

    def __init__(
        self,
        records: ScanRecords | None,
        versions: VersionHistory,
        held: Callable[[str, int], LiveImage | None],
    ) -> None:
        self._records, self._versions, self._held = records, versions, held
        self._list: ScanList | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="page-data")
        self._n_waiting = 0

    def add_to(self, app: web.Application) -> None:
        """Adds the routes to `app`, and what ends with it."""
        get = app.router.add_get
        get("/scans", self._scans)
        get("/scans/{scan}/probe", self._probe)
        get("/scans/{scan}/pattern", self._pattern)
        get("/scans/{scan}/curves", self._curves)
        get("/scans/{scan}/thumbnail", self._thumbnail)
        get("/scans/{scan}/picture", self._picture)
        get("/versions", self._kept)
        get("/versions/{scan}/{version:[0-9]{1,12}}", self._version)
        get("/file/{scan}/{version:[0-9]{1,12}}/{map}.tif", self._tiff)
        get("/file/{scan}/{version:[0-9]{1,12}}/image.cxi", self._cxi)
        app.on_cleanup.append(self._close)

    async def _close(self, app: web.Application) -> None:
        self._reader.shutdown(cancel_futures=True)

    async def _scans(self, request: web.Request) -> web.Response:
        before, n_scans = request.query.get("before", ""), _whole(request, "n", 24)
        return _json(await self._read(lambda: self._listed().page(before, n_scans)))

    async def _probe(self, request: web.Request) -> web.Response:
        def answer(record: ScanRecord) -> bytes | None:
            from launch.page.scans.probe_view import probe_packet

            return probe_packet(record, request.query.get("after", ""))

        packet = await self._of_scan(request, answer)
        return web.Response(status=204) if packet is None else _binary(packet)

    async def _pattern(self, request: web.Request) -> web.Response:
        number = _whole(request, "frame") if "frame" in request.query else None

        def answer(record: ScanRecord) -> bytes:
            from launch.page.scans.pattern_view import pattern_packet

            return pattern_packet(record, number)

        return _binary(await self._of_scan(request, answer))

    async def _curves(self, request: web.Request) -> web.Response:
        def answer(record: ScanRecord) -> dict[str, Any]:
            from launch.page.scans.curves import curves_of

            return curves_of(record)

        return _json(await self._of_scan(request, answer))

    async def _thumbnail(self, request: web.Request) -> web.Response:
        name = request.match_info["scan"]
        return _binary(await self._read(lambda: self._listed().thumbnail(name)))

    async def _picture(self, request: web.Request) -> web.Response:
        name = request.match_info["scan"]
        return _binary(await self._read(lambda: self._listed().picture(name)))

    async def _kept(self, request: web.Request) -> web.Response:
        return _json(self._versions.listed())

    async def _version(self, request: web.Request) -> web.Response:
        scan, version = request.match_info["scan"], int(request.match_info["version"])
        packet = self._versions.packet(scan, version)
        if packet is None:
            raise web.HTTPNotFound(text=f"version {version} of {scan} is not kept any more")
        return _binary(packet)

    async def _tiff(self, request: web.Request) -> web.Response:
        scan, version, name = _names(request)
        if name not in UNITS:
            raise web.HTTPNotFound(text=f"there is no map {name!r}, only {', '.join(UNITS)}")
        live = None if "stored" in request.query else self._held(scan, version)
        packet = self._versions.packet(scan, version) if live is None else None

        def answer() -> tuple[bytes, int]:
            from launch.page.image_file import tiff_of_image, tiff_of_packet
            from launch.page.scans.scan_list import final_image

            if packet is not None:
                return tiff_of_packet(packet, name), version
            image = live or final_image(self._folder().open(scan))
            return tiff_of_image(image, name), image.version

        content, version = await self._read(answer)
        return _attached(content, f"{scan}-v{version}-{name}.tif", "image/tiff")

    async def _cxi(self, request: web.Request) -> web.Response:
        scan, version, _ = _names(request)
        live = None if "stored" in request.query else self._held(scan, version)
        if live is None and self._versions.packet(scan, version) is not None:
            raise web.HTTPConflict(text="of an earlier version only the picture is kept: save it as TIFF")

        def answer() -> tuple[bytes, int]:
            from launch.page.image_file import cxi_of_image
            from launch.page.scans.scan_list import final_image

            record = self._folder().open(scan)
            if live is None and record.result.exists():
                return record.result.read_bytes(), version
            image = live or final_image(record)
            return cxi_of_image(image, record), image.version

        content, version = await self._read(answer)
        return _attached(content, f"{scan}-v{version}.cxi", "application/x-hdf5")

    async def _of_scan(self, request: web.Request, answer: Callable[[ScanRecord], Answer]) -> Answer:
        name = request.match_info["scan"]
        return await self._read(lambda: answer(self._folder().open(name)))

    async def _read(self, answer: Callable[[], Answer]) -> Answer:
        if self._n_waiting >= MOST_WAITING:
            raise web.HTTPServiceUnavailable(text="too many questions at once: ask again in a moment")
        self._n_waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, answer)
        except NotThereError as error:
            raise web.HTTPNotFound(text=str(error)) from error
        except (OSError, ValueError) as error:
            # a file that is being written or removed, or a mask that is not there any more
            raise web.HTTPConflict(text=f"it cannot be read: {error}") from error
        finally:
            self._n_waiting -= 1

    def _folder(self) -> ScanRecords:
        if self._records is None:
            raise NotThereError("this page has no folder of scans")
        return self._records

    def _listed(self) -> "ScanList":
        from launch.page.scans.scan_list import ScanList

        if self._list is None:
            self._list = ScanList(self._folder())
        return self._list


def _names(request: web.Request) -> tuple[str, int, str]:
    parts = request.match_info
    return parts["scan"], int(parts["version"]), parts.get("map", "")


def _attached(content: bytes, name: str, kind: str) -> web.Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return web.Response(body=content, content_type=kind, headers=headers)


def _whole(request: web.Request, name: str, otherwise: int = 0) -> int:
    text = request.query.get(name, str(otherwise))
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise web.HTTPBadRequest(text=f"{name}={text}: expected a whole number")
    return int(text)


def _json(values: object) -> web.Response:
    return web.Response(body=plain_json(values), content_type="application/json")


def _binary(packet: bytes) -> web.Response:
    return web.Response(body=packet, content_type="application/octet-stream")
