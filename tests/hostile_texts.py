"""Texts that name other files and addresses, called clip.mp4: FFmpeg has a reader for each. Knows no videos."""

from collections.abc import Iterator

from tests.hostile_files import DAMAGED, UNSUPPORTED, Hostile, Sources, hostile

KIND = "texts"


def make(sources: Sources) -> Iterator[Hostile]:
    for name, text in texts(sources).items():
        yield hostile(KIND, f"{name}.mp4", text.encode(), UNSUPPORTED)
    # The same behind the first bytes of a video, for a reader that looks only at these, or only behind them.
    hls = texts(sources)["hls-absolute"].encode()
    for name, head in HEADS.items():
        yield hostile(KIND, f"hls-behind-{name}.mp4", head + hls, UNSUPPORTED, DAMAGED)
    yield hostile(KIND, "hls-in-utf16.mp4", hls.decode().encode("utf-16"), UNSUPPORTED)
    yield hostile(KIND, "hls-behind-a-bom.mp4", b"\xef\xbb\xbf" + hls, UNSUPPORTED)


HEADS = {
    "ftyp": b"\0\0\0\x14ftypisom\0\0\2\0isom",
    "matroska": b"\x1a\x45\xdf\xa3",
    "avi": b"RIFF\xff\xff\xff\x7fAVI LIST",
    "mpegts": (b"\x47\x1f\xff\x10" + b"\xff" * 184) * 6,
}


def texts(sources: Sources) -> dict[str, str]:
    near, here, away = "../neighbours", str(sources.neighbours), f"http://127.0.0.1:{sources.port}"
    host = f"127.0.0.1:{sources.port}"
    return {
        "hls-relative": _hls(f"{near}/clip.ts"),
        "hls-absolute": _hls(f"{here}/clip.ts"),
        "hls-file-url": _hls(f"file://{here}/clip.ts"),
        "hls-http": _hls(f"{away}/clip.ts"),
        "hls-crypto": _hls(f"crypto+file://{here}/clip.ts"),
        "hls-concat": _hls(f"concat:{away}/head.m3u8|file://{here}/secret.txt"),
        "hls-descriptor": _hls("/proc/self/fd/0"),
        "hls-key": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n"
        f'#EXT-X-KEY:METHOD=AES-128,URI="{away}/key"\n#EXTINF:1,\n{here}/clip.ts\n#EXT-X-ENDLIST\n',
        "hls-map": f'#EXTM3U\n#EXT-X-MAP:URI="{here}/clip.mp4",BYTERANGE="1000@0"\n#EXTINF:1,\n{here}/clip.ts\n',
        "hls-master": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{away}/list.m3u8\n",
        "m3u": f"{here}/clip.mp4\n",
        "ffconcat-relative": f"ffconcat version 1.0\nfile {near}/clip.mp4\n",
        "ffconcat-absolute": f"ffconcat version 1.0\nfile '{here}/clip.mp4'\n",
        "ffconcat-http": f"ffconcat version 1.0\nfile {away}/clip.mp4\n",
        "ffconcat-options": f"ffconcat version 1.0\nfile {here}/clip.mp4\noption safe 0\nduration 1e9\n",
        "ffconcat-itself": "ffconcat version 1.0\nfile ffconcat-itself.mp4\n",
        "ffmetadata": ";FFMETADATA1\ntitle=a\n[STREAM]\n",
        "sdp-udp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video {sources.port} RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        "sdp-multicast": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 239.1.2.3/1\nm=video 5004 RTP/AVP 32\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        f"<AdaptationSet><Representation><BaseURL>{away}/clip.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>",
        "dash-entity": f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file://{here}/secret.txt">]>'
        '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period id="&e;"/></MPD>',
        "smooth": f'<?xml version="1.0"?><SmoothStreamingMedia><StreamIndex Url="{away}/q"/></SmoothStreamingMedia>',
        "asx": f'<asx version="3.0"><entry><ref href="{away}/clip.wmv"/></entry></asx>',
        "rtsp-text": f"RTSPtext\nrtsp://{host}/clip\n",
        "svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="file://{here}/frame0.jpg"/></svg>',
        "avisynth": f'FFVideoSource("{here}/clip.mp4")\n',
        "vapoursynth": f"import vapoursynth\nopen('{here}/secret.txt')\n",
        "filter-graph": f"movie={here}/clip.mp4\n",
        "image-list": "".join(f"{here}/frame{number}.jpg\n" for number in range(3)),
        "html": f'<!DOCTYPE html><video src="{away}/clip.mp4"></video>',
        "quicktime-text": f"RTSPtextrtsp://{host}/a\r\n",
        "webvtt": "WEBVTT\n\n00:00.000 --> 00:01.000\nwords\n",
        "shell": f"#!/bin/sh\ncat {here}/secret.txt\n",
    }


def _hls(target: str) -> str:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n"
