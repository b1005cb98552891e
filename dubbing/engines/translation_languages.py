"""Language codes of the translation models, and which BCP-47 tag means which of them. Data, and the few rules around it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_FLORES = """
ace_Latn ace_Arab acm_Arab acq_Arab aeb_Arab afr_Latn ajp_Arab aka_Latn als_Latn amh_Ethi apc_Arab arb_Arab ars_Arab ary_Arab
arz_Arab asm_Beng ast_Latn awa_Deva ayr_Latn azj_Latn azb_Arab bak_Cyrl bam_Latn ban_Latn bel_Cyrl bem_Latn ben_Beng
bho_Deva bjn_Latn bjn_Arab bod_Tibt bos_Latn bug_Latn bul_Cyrl cat_Latn ceb_Latn ces_Latn cjk_Latn ckb_Arab crh_Latn
cym_Latn dan_Latn deu_Latn dik_Latn dyu_Latn dzo_Tibt ell_Grek eng_Latn epo_Latn est_Latn eus_Latn ewe_Latn fao_Latn
fij_Latn fin_Latn fon_Latn fra_Latn fur_Latn fuv_Latn gaz_Latn gla_Latn gle_Latn glg_Latn grn_Latn guj_Gujr hat_Latn
hau_Latn heb_Hebr hin_Deva hne_Deva hrv_Latn hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn isl_Latn ita_Latn jav_Latn
jpn_Jpan kab_Latn kac_Latn kam_Latn kan_Knda kas_Arab kas_Deva kat_Geor kaz_Cyrl kbp_Latn kea_Latn khk_Cyrl khm_Khmr
kik_Latn kin_Latn kir_Cyrl kmb_Latn kmr_Latn knc_Latn knc_Arab kon_Latn kor_Hang lao_Laoo lij_Latn lim_Latn lin_Latn
lit_Latn lmo_Latn ltg_Latn ltz_Latn lua_Latn lug_Latn luo_Latn lus_Latn lvs_Latn mag_Deva mai_Deva mal_Mlym mar_Deva
min_Latn mkd_Cyrl mlt_Latn mni_Beng mos_Latn mri_Latn mya_Mymr nld_Latn nno_Latn nob_Latn npi_Deva nso_Latn nus_Latn
nya_Latn oci_Latn ory_Orya pag_Latn pan_Guru pap_Latn pbt_Arab pes_Arab plt_Latn pol_Latn por_Latn prs_Arab quy_Latn
ron_Latn run_Latn rus_Cyrl sag_Latn san_Deva sat_Beng scn_Latn shn_Mymr sin_Sinh slk_Latn slv_Latn smo_Latn sna_Latn
snd_Arab som_Latn sot_Latn spa_Latn srd_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn swh_Latn szl_Latn tam_Taml taq_Latn
taq_Tfng tat_Cyrl tel_Telu tgk_Cyrl tgl_Latn tha_Thai tir_Ethi tpi_Latn tsn_Latn tso_Latn tuk_Latn tum_Latn tur_Latn
twi_Latn tzm_Tfng uig_Arab ukr_Cyrl umb_Latn urd_Arab uzn_Latn vec_Latn vie_Latn war_Latn wol_Latn xho_Latn ydd_Hebr
yor_Latn yue_Hant zho_Hans zho_Hant zsm_Latn zul_Latn
"""
"""NLLB-200's codes, as its tokenizer has them; where a language has several scripts, the usual one comes first."""

_ISO_639_3 = """
af:afr ak:aka am:amh ar:arb as:asm ay:ayr az:azj ba:bak be:bel bg:bul bm:bam bn:ben bo:bod bs:bos ca:cat cs:ces cy:cym
da:dan de:deu dz:dzo ee:ewe el:ell en:eng eo:epo es:spa et:est eu:eus fa:pes ff:fuv fi:fin fj:fij fo:fao fr:fra ga:gle
gd:gla gl:glg gn:grn gu:guj ha:hau he:heb hi:hin hr:hrv ht:hat hu:hun hy:hye id:ind ig:ibo is:isl it:ita ja:jpn jv:jav
ka:kat kg:kon ki:kik kk:kaz km:khm kn:kan ko:kor kr:knc ks:kas ku:kmr ky:kir lb:ltz lg:lug li:lim ln:lin lo:lao lt:lit
lv:lvs mg:plt mi:mri mk:mkd ml:mal mn:khk mr:mar ms:zsm mt:mlt my:mya nb:nob ne:npi nl:nld nn:nno no:nob ny:nya oc:oci
om:gaz or:ory pa:pan pl:pol ps:pbt pt:por qu:quy rn:run ro:ron ru:rus rw:kin sa:san sc:srd sd:snd sg:sag si:sin sk:slk
sl:slv sm:smo sn:sna so:som sq:als sr:srp ss:ssw st:sot su:sun sv:swe sw:swh ta:tam te:tel tg:tgk th:tha ti:tir tk:tuk
tl:tgl fil:tgl tn:tsn tr:tur ts:tso tt:tat tw:twi ug:uig uk:ukr ur:urd uz:uzn vi:vie wo:wol xh:xho yi:ydd yo:yor zh:zho
zu:zul yue:yue
"""
"""BCP-47 primary language -> the ISO 639-3 code FLORES uses: of a macrolanguage, the member that is meant by it."""

_M2M_100 = """
af am ar ast az ba be bg bn br bs ca ceb cs cy da de el en es et fa ff fi fr fy ga gd gl gu ha he hi hr ht hu hy id ig ilo is
it ja jv ka kk km kn ko lb lg ln lo lt lv mg mk ml mn mr ms my ne nl no ns oc or pa pl ps pt ro ru sd si sk sl so sq sr ss su
sv sw ta th tl tn tr uk ur uz vi wo xh yi yo zh zu
"""

_MADLAD_400 = """
en ru es fr de it pt pl nl vi tr sv id ro cs zh hu ja th fi fa uk da el no bg sk ko ar lt ca sl he et lv hi sq ms az sr ta hr
kk is ml mr te af gl fil be mk eu bn ka mn bs uz ur sw yue ne kaa kn gu si cy eo la hy ky tg ga mt my km tt so ku ps pa rw lo
ha dv fy lb ckb mg gd am ug ht grc hmn sd jv mi tk ceb yi ba fo or xh su kl ny sm sn co zu ig yo pap st haw as oc cv lus tet
gsw sah br rm sa bo om se ce cnh ilo hil udm os lg ti vec ts tyv kbd ee iba av kha to tn nso fj zza ak ada otq dz bua cfm ln
chm gn krc wa hif yua srn war rom bik pam sg lu ady kbp syr ltg myv iso kac bho ay kum qu za pag ngu ve pck zap tyz hui bbc
tzo tiv ksd gom min ang nhe bgp nzi nnb nv bci kv new mps alt meu bew fon iu abt mgh mnw tvl dov tlh ho kw mrj meo crh mbt emp
ace ium mam gym mai crs pon ubu fip quc gv kj btx ape chk rcf shn tzh mdf ppk ss gag cab kri seh ibb tbz bru enq ach cuk kmb wo
kek qub tab bts kos rwo cak tuc bum cjk gil stq tsg quh mak arn ban jiv sja yap tcy toj twu xal amu rmc hus nia kjh bm guh mas
acf dtp ksw bzj din zne mad msi mag mkn kg lhu ch qvi mh djk sus mfe srm dyu ctu gui pau inb bi mni guc jam wal jac bas gor skr
nyu noa sda gub nog cni teo tdx sxn rki nr frp alz taj lrc cce rn jvn hvn nij dwr izz msm bus ktu chr maz tzj suz knj bim gvl
bqc tca pis prk laj mel qxr niq ahk shp hne spp koi krj quf luz agr tsc mqy gof gbm miq dje awa bjj qvz sjp tll raj kjg bgz quy
cbk akb oj ify mey ks cac brx qup syl jax ff ber tks trp mrw adh smt srr ffm qvc mtr ann aa noe nut gyn kwi xmm msb
"""
"""MADLAD-400's codes of its model card; its vocabulary has the last word when it is loaded."""

_RENAMED = {"iw": "he", "in": "id", "ji": "yi", "jw": "jv", "mo": "ro", "sh": "sr"}
"""Withdrawn ISO 639-1 codes that files still carry."""
_HANT = frozenset({"TW", "HK", "MO"})
_UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "km", "bo", "dz", "yue", "shn"})
_ONE_SCRIPT = {"zh": "Hans", "sr": "Cyrl"}
"""Languages of two scripts that M2M-100 and, for Serbian, MADLAD write in one only."""


@dataclass(frozen=True, slots=True)
class Tag:
    """A BCP-47 tag, parted."""

    language: str
    """Primary language, lower case, never a withdrawn code."""
    script: str = ""
    """Four letters, as written or, for Chinese, as the region implies; empty when the tag does not say."""
    region: str = ""


@lru_cache(maxsize=1024)
def parse(tag: str) -> Tag:
    """The parts of a tag such as `pt-BR` or `zh_hant_tw`; unknown subtags are passed over."""
    first, *rest = tag.replace("_", "-").split("-")
    language = _RENAMED.get(first.lower(), first.lower())
    script = next((part.title() for part in rest if len(part) == 4 and part.isalpha()), "")
    region = next((part.upper() for part in rest if re.fullmatch(r"[A-Za-z]{2}|\d{3}", part)), "")
    if language == "zh" and not script:
        script = "Hant" if region in _HANT else "Hans"
    return Tag(language, script, region)


def spaced(tag: str) -> bool:
    """Whether the language parts its sentences with spaces."""
    return parse(tag).language not in _UNSPACED


@lru_cache(maxsize=1)
def _flores_codes() -> dict[str, list[str]]:
    """ISO 639-3 -> its FLORES codes, the usual script first."""
    found: dict[str, list[str]] = {}
    for code in _FLORES.split():
        found.setdefault(code[:3], []).append(code)
    return found


@lru_cache(maxsize=1)
def _iso_639_3() -> dict[str, str]:
    return dict(pair.split(":") for pair in _ISO_639_3.split())


def nllb(tag: str) -> str | None:
    """NLLB-200's code: es -> spa_Latn, zh-TW -> zho_Hant, pt-BR -> por_Latn; None when it has no such language or script."""
    asked = parse(tag)
    codes = _flores_codes().get(_iso_639_3().get(asked.language, asked.language), [])
    if asked.language == "az" and asked.script == "Arab":
        return "azb_Arab"
    return next((code for code in codes if asked.script in ("", code[4:])), None)


def m2m100(tag: str) -> str | None:
    """M2M-100's code: pt-BR -> pt, nb -> no; None when it has no such language, or writes it in another script."""
    asked = parse(tag)
    language = {"nb": "no", "nn": "no", "fil": "tl", "nso": "ns"}.get(asked.language, asked.language)
    one = _ONE_SCRIPT.get(language)
    return language if language in _M2M_100.split() and (not asked.script or one in (None, asked.script)) else None


def madlad400(tag: str) -> str | None:
    """MADLAD-400's code: zh -> zh, zh-TW -> zh_Hant, tl -> fil; None when it has no such language or script."""
    asked = parse(tag)
    language = {"nb": "no", "nn": "no", "tl": "fil"}.get(asked.language, asked.language)
    if language not in _MADLAD_400.split() or (language == "sr" and asked.script not in ("", "Cyrl")):
        return None
    return "zh_Hant" if (language, asked.script) == ("zh", "Hant") else language


def nllb_languages() -> frozenset[str]:
    """Primary languages of NLLB-200."""
    short = _iso_639_3()
    return frozenset(short) | (frozenset(_flores_codes()) - frozenset(short.values()))


def m2m100_languages() -> frozenset[str]:
    """Primary languages of M2M-100."""
    return frozenset(_M2M_100.split()) - {"ns"} | {"nb", "nn", "fil", "nso"}


def madlad400_languages() -> frozenset[str]:
    """Primary languages of MADLAD-400."""
    return frozenset(_MADLAD_400.split()) | {"nb", "nn", "tl"}
