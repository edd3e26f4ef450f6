"""aiortc as a WHEP player: `play.py ENDPOINT`. Decodes what comes and reports it four times a second."""

import array
import asyncio
import statistics
import sys

from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from session import leave, negotiate, peer_connection, say, until_told_to_end

REPORT_SECONDS = 0.25
# Of the luma plane, every so many bytes are looked at.
LUMA_STEP = 97


class Tally:
    """What was decoded so far."""

    def __init__(self):
        self.video = {"frames": 0, "width": 0, "height": 0, "contrast": 0}
        self.audio = {"received": 0, "level": 0}

    async def watch(self, track: MediaStreamTrack):
        while True:
            frame = await track.recv()
            self.video |= {"frames": self.video["frames"] + 1, "width": frame.width, "height": frame.height}
            luma = bytes(frame.reformat(format="yuv420p").planes[0])
            self.video["contrast"] = statistics.pstdev(luma[::LUMA_STEP])

    async def listen(self, track: MediaStreamTrack):
        while True:
            frame = await track.recv()
            samples = array.array("h", bytes(frame.planes[0]))
            self.audio = {"received": self.audio["received"] + frame.samples, "level": max(map(abs, samples))}

    async def report(self):
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            say(statistics={**self.video, "audio": self.audio})


async def main(endpoint):
    connection = peer_connection()
    tally = Tally()
    tasks = set()

    @connection.on("track")
    def on_track(track):
        consume = tally.watch if track.kind == "video" else tally.listen
        tasks.add(asyncio.create_task(until_it_ends(consume(track))))

    connection.addTransceiver("video", direction="recvonly")
    connection.addTransceiver("audio", direction="recvonly")
    ended = asyncio.create_task(until_told_to_end())
    session = await negotiate(connection, endpoint)
    tasks.add(asyncio.create_task(tally.report()))
    await ended
    await leave(connection, session)


async def until_it_ends(consuming):
    try:
        await consuming
    except MediaStreamError:
        pass  # How aiortc says that a track is over.


asyncio.run(main(sys.argv[1]))
