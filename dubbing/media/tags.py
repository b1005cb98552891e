"""Language tags and codecs as containers want them (pure)."""

from __future__ import annotations

_TABLE = """
af=afr am=amh an=arg ar=ara as=asm ast=ast az=aze be=bel bg=bul bn=ben br=bre bs=bos ca=cat cs=ces cy=cym da=dan
de=deu dv=div el=ell en=eng eo=epo es=spa et=est eu=eus fa=fas fi=fin fil=fil fo=fao fr=fra fy=fry ga=gle gd=gla
gl=glg gn=grn gu=guj ha=hau he=heb hi=hin hr=hrv ht=hat hu=hun hy=hye ia=ina id=ind ig=ibo is=isl it=ita ja=jpn
jv=jav ka=kat kk=kaz km=khm kn=kan ko=kor ku=kur ky=kir la=lat lb=ltz ln=lin lo=lao lt=lit lv=lav mg=mlg mi=mri
mk=mkd ml=mal mn=mon mr=mar ms=msa mt=mlt my=mya nb=nob ne=nep nl=nld nn=nno no=nor ny=nya oc=oci om=orm or=ori
pa=pan pl=pol ps=pus pt=por qu=que rm=roh ro=ron ru=rus rw=kin sa=san sc=srd sd=snd sh=hbs si=sin sk=slk sl=slv
sm=smo sn=sna so=som sq=sqi sr=srp st=sot su=sun sv=swe sw=swa ta=tam te=tel tg=tgk th=tha ti=tir tk=tuk tl=tgl
tn=tsn to=ton tr=tur ts=tso tt=tat ug=uig uk=ukr ur=urd uz=uzb vi=vie wo=wol xh=xho yi=yid yo=yor zh=zho zu=zul
yue=zho cmn=zho iw=heb in=ind ji=yid
"""
_ISO_639_2 = dict(pair.split("=") for pair in _TABLE.split())
MP4_VIDEO = frozenset({"h264", "hevc", "av1", "vp9", "mpeg4", "mpeg2video", "mpeg1video", "mjpeg", "vvc"})
"""Video codecs that MP4 can carry and that some player plays from there."""
MP4_AUDIO = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus"})


def iso639_2(tag: str) -> str:
    """Three letters (ISO 639-2/T) for a BCP-47 tag: MP4 drops any other; `und` when there is none."""
    primary = tag.replace("_", "-").split("-")[0].lower()
    if primary in _ISO_639_2:
        return _ISO_639_2[primary]
    return primary if len(primary) == 3 and primary.isascii() and primary.isalpha() else "und"


def mp4_refusal(video_codec: str | None) -> str:
    """Why MP4 cannot be written for this video codec; empty when it can."""
    if video_codec is None or video_codec in MP4_VIDEO:
        return ""
    return f"no MP4: its video codec ({video_codec}) cannot live in MP4 as it is; the MKV has everything"
