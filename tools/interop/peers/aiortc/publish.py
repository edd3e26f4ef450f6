"""aiortc as a WHIP publisher: `publish.py ENDPOINT TOKEN CODEC WIDTH HEIGHT FPS`. A moving gradient and a tone."""

import array
import asyncio
import math
import sys
import time
from fractions import Fraction

from aiortc import MediaStreamTrack, RTCRtpSender
from av import AudioFrame, VideoFrame

from session import leave, negotiate, peer_connection, until_told_to_end

RATE = 48_000
# 20 ms, one Opus packet.
SAMPLES = 960
TONE_HZ = 400
LOUDNESS = 8_000


class Paced(MediaStreamTrack):
    """A track that gives a frame each `seconds`, in real time."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds
        self.begin = None
        self.count = 0

    async def turn(self):
        """The number of the frame whose time has come."""
        self.begin = self.begin or time.monotonic()
        number = self.count
        self.count += 1
        await asyncio.sleep(max(0, self.begin + number * self.seconds - time.monotonic()))
        return number


class Gradient(Paced):
    kind = "video"

    def __init__(self, width, height, fps):
        super().__init__(1 / fps)
        self.size = (width, height)
        self.fps = fps
        self.wide = bytes(x % 256 for x in range(width + 256))

    async def recv(self):
        number = await self.turn()
        width, height = self.size
        frame = VideoFrame(width, height, "yuv420p")
        luma, *chroma = frame.planes
        row = self.wide[number * 4 % 256 :][:width].ljust(luma.line_size, b"\0")
        luma.update(row * height)
        for plane in chroma:
            plane.update(b"\x60" * plane.buffer_size)
        frame.pts, frame.time_base = number, Fraction(1, self.fps)
        return frame


class Tone(Paced):
    kind = "audio"

    def __init__(self):
        super().__init__(SAMPLES / RATE)
        wave = (round(LOUDNESS * math.sin(2 * math.pi * TONE_HZ * i / RATE)) for i in range(SAMPLES))
        # A whole number of periods, so that one packet follows another without a click.
        self.packet = array.array("h", wave).tobytes()

    async def recv(self):
        number = await self.turn()
        frame = AudioFrame(format="s16", layout="mono", samples=SAMPLES)
        frame.planes[0].update(self.packet)
        frame.sample_rate, frame.pts, frame.time_base = RATE, number * SAMPLES, Fraction(1, RATE)
        return frame


async def main(endpoint, token, codec, width, height, fps):
    connection = peer_connection()
    connection.addTransceiver(Tone(), direction="sendonly")
    video = connection.addTransceiver(Gradient(int(width), int(height), int(fps)), direction="sendonly")
    # Its own order of preference is VP8 before H.264.
    if codec != "default":
        capable = RTCRtpSender.getCapabilities("video").codecs
        video.setCodecPreferences([one for one in capable if one.mimeType.upper() in (f"VIDEO/{codec}", "VIDEO/RTX")])
    ended = asyncio.create_task(until_told_to_end())
    session = await negotiate(connection, endpoint, token)
    if session is None:
        sys.exit(1)
    await ended
    await leave(connection, session, token)


asyncio.run(main(*sys.argv[1:]))
