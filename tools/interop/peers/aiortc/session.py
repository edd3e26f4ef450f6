"""What both aiortc peers share: WHIP and WHEP by plain HTTP, and one JSON object a line on standard output."""

import asyncio
import json
import signal
import urllib.error
import urllib.parse
import urllib.request

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription


def peer_connection():
    """One that asks no STUN server in the internet, as aiortc does by itself."""
    return RTCPeerConnection(RTCConfiguration(iceServers=[]))


def say(**event):
    print(json.dumps(event), flush=True)


def request(method, url, token=None, body=None):
    """The status, the `Location` and the text of the answer, errors included."""
    headers = {"Content-Type": "application/sdp"} if body else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    asked = urllib.request.Request(url, data=body and body.encode(), method=method, headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=20) as response:
            return response.status, response.headers["Location"], response.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, None, refusal.read().decode()


async def negotiate(connection: RTCPeerConnection, endpoint, token=None):
    """Posts the offer and applies the answer; the session's URL, `None` if the endpoint refused."""
    await connection.setLocalDescription(await connection.createOffer())
    offer = connection.localDescription.sdp
    status, location, answer = await asyncio.to_thread(request, "POST", endpoint, token, offer)
    say(answered={"status": status, "offer": offer, "answer": answer})
    if status != 201:
        return None
    await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    return urllib.parse.urljoin(endpoint, location)


async def until_told_to_end():
    """Returns after SIGINT or SIGTERM."""
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    await told.wait()


async def leave(connection: RTCPeerConnection, session, token=None):
    """Ends the session by DELETE, as the protocol asks."""
    if session:
        status, _, text = await asyncio.to_thread(request, "DELETE", session, token)
        if status != 200:
            raise RuntimeError(f"DELETE answered {status}: {text}")
    await connection.close()
