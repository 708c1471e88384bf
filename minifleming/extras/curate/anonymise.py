"""Identifiers of persons, replaced by placeholders.

    "Mr. Smith, MRN 0012345, seen on 3/5/2019, aged 93"
    ->  "Mr. [NAME], MRN [ID], seen on [DATE], aged 90+"        lineage: {"NAME": 1, "ID": 1, "DATE": 1, "AGE": 1}

A transform: nothing is dropped. The kinds follow the safe harbour rule (45 CFR 164.514(b)(2)): e-mail, phone, URL,
record and identity numbers, full calendar dates, names after a title, and ages over 89, which become "90+". Ages up to
89 and years alone stay, and so does whatever medicine writes with the same characters: 120/80, 5-10-15, 1-800, ICD
codes. A date counts with day, month and year; it stays if it bounds a period ("between June 1, 2002 and ...") and no
single person is near; both ends of a period stay or go. So does who is asked for as a discoverer ("Dr Lind proved
which ..."). Options are what may be answered: names, dates and ages stay in them, and so does everything if
they would no longer differ. An item that a graph proves is left alone: its names are nodes, and its proof quotes them.

Every pattern begins at a fixed place and repeats a bounded number of times: linear in the length of the text.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable

from minifleming.extras.curate.step import Result, each, noted
from minifleming.extras.curate.text import plain
from minifleming.rods.item import Item

STEP = "anonymise"
YEAR, MONTH, DAY = r"(?:1[89]|20)\d{2}", r"(?:0?[1-9]|1[0-2])", r"(?:0?[1-9]|[12]\d|3[01])"
NAMED = (r"(?:Jan(?:uary|\.)?|Feb(?:ruary|\.)?|Mar(?:ch|\.)?|Apr(?:il|\.)?|May|June?|July?|Aug(?:ust|\.)?"
         r"|Sept?(?:ember|\.)?|Oct(?:ober|\.)?|Nov(?:ember|\.)?|Dec(?:ember|\.)?)")
SURNAMES = ("王李张刘陈杨赵黄周吴徐孙胡朱郭何林罗郑梁谢宋唐许邓冯韩曹曾彭萧蔡潘田董袁余叶蒋杜苏"
            "魏吕丁沈任姚卢傅钟崔廖汪范陆贾")
UNIT = r"(?!\s{0,2}(?:copies|cells|cfu|iu|u/|/|×|x\s?10|个))"  # 13800000000 copies/mL is a viral load


def compiled(pattern: str, flags: int = 0) -> re.Pattern:
    return re.compile(pattern, flags)


URL = compiled(r"(?<!\w)(?:https?://|www\.)[^\s<>\"'\[\]（）。，；、)]+", re.IGNORECASE)
EMAIL = compiled(r"(?<![\w.%+-])[\w.%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,6}(?<!-)", re.ASCII)
RECORD = compiled(
    r"((?<![A-Za-z])(?:MRN|SSN|medical record (?:number|no\.?)|record (?:number|no\.?)|patient (?:id|identifier)"
    r"|(?:hospital|admission|chart|account|health plan|social security) number)"
    r"|住院号|病历号|门诊号|病案号|就诊卡号|身份证号?码?|医保号)"
    r"(\s{0,3}(?:is|was|no\.?|[:：#＃=为是])?\s{0,3}[#:：]?\s{0,2})([A-Za-z]{0,3}-?\d[\dXx-]{3,24})(?!\w)",
    re.IGNORECASE)
SSN = compiled(r"(?<![\w.-])\d{3}-\d{2}-\d{4}(?![\w-])")
RESIDENT = compiled(rf"(?<![0-9A-Za-z.])[1-9]\d{{5}}{YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{{3}}[\dXx]"
                    r"(?![0-9A-Za-z])")
PHONE_US = compiled(r"(?<![\w.+/-])(?:\+?1[-. ])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[-.])[2-9]\d{2}[-.]\d{4}"
                    r"(?![\w-]|\.\d)")
PHONE_TOLD = compiled(
    r"((?<!\w)(?:tel|telephone|phone|mobile|cell phone|fax|call)(?: number)?(?: is|:|\.)?\s{1,3}"
    r"|(?:电话|手机|联系方式)号?码?[:：为是]?\s{0,2})"
    r"(\+?\(?\d{2,4}\)?[-. ]?\d{3,4}[-. ]?\d{3,4})(?![\w-]|\.\d)", re.IGNORECASE)
PHONE_PLUS = compiled(r"(?<![\w.+^])\+[1-9]\d{0,2}(?:[ .-]?\(?\d{2,4}\)?){2,5}(?![\w-])")
PHONE_CN = compiled(rf"(?<![\w.+-])(?:\+?86[- ]?)?1[3-9]\d(?:-\d{{4}}-\d{{4}}|\d{{8}})(?!\d|[.-]\d){UNIT}",
                    re.ASCII | re.IGNORECASE)
LANDLINE_CN = compiled(r"(?<![\w.-])0\d{2,3}-\d{7,8}(?![\w-])", re.ASCII)
DATES = [compiled(pattern, flags) for pattern, flags in (
    (rf"(?<![\d/.-]){YEAR}([-/.]){MONTH}\1{DAY}(?![\d/-]|\.\d)", 0),  # 2019-03-05
    (rf"(?<![\d/.-])(?:{MONTH}([-/]){DAY}|{DAY}([-/]){MONTH})(?:\1|\2){YEAR}(?![\d/-]|\.\d)", 0),  # 3/5/2019, 25-3-2019
    (rf"(?<![\d/.-]){DAY}\.{MONTH}\.{YEAR}(?![\d/-]|\.\d)", 0),  # 5.3.2019
    (rf"(?<!\w){NAMED} {{1,2}}{DAY}(?:st|nd|rd|th)?,? {{1,2}}{YEAR}(?!\w)", re.IGNORECASE),  # March 5th, 2019
    (rf"(?<![\w.]){DAY}(?:st|nd|rd|th)?(?: of)?[ -]{NAMED},?[ -]{YEAR}(?!\w)", re.IGNORECASE),  # 5th of March 2019
    (rf"(?<!\d){YEAR} ?年 ?{MONTH} ?月 ?{DAY} ?[日号]", 0),
)]
BORN = compiled(r"((?<!\w)(?:DOB|date of birth|born(?: on)?)\s{0,2}[:：]?\s{0,2})"
                r"\d{1,2}([-/])\d{1,2}\2(?:\d{2}|\d{4})(?![\d/-])", re.IGNORECASE)
NAME = compiled(r"(?<!\w)((?:Mr|Mrs|Ms|Dr|Prof|Professor)\.?(?: and (?:Mr|Mrs|Ms|Dr)\.?)?[ \t]{1,3}"
                r"|(?<![Ww]e )(?<!I )(?<!to )(?<!To )(?<!ot )Miss[ \t]{1,3})"
                r"[A-Z](?:\w{0,30}(?:['’-][A-Z]\w{0,30}){0,2}|\.)(?:[ \t][A-Z](?:[a-z'’-]{1,30}[a-z]|\.)){0,2}(?!\w)")
NAME_CN = compiled(rf"(?<![对该某这那位])[{SURNAMES}](?:某{{1,2}}(?!种|些|个|一|项|类)|(?=先生|女士|小姐))")
AGE = compiled(r"(?<![\d.,/+-])(?:9\d|1[0-2]\d)(?=[- ](?:years?|yrs?|y)[- ](?:old|of age)(?!\w)|[- ]?y/?o(?!\w)"
               r"| ?周?岁)", re.IGNORECASE)
AGED = compiled(r"((?<!\w)(?:aged|age of|age:|年龄[:：]?)\s{0,2})(?:9\d|1[0-2]\d)"
                r"(?![\d+%/-]|\.\d|\s?(?:to|and|days|weeks|months)\b)", re.IGNORECASE)


PERIOD = compiled(r"(?:between|from|since|until|till|through|to|and|before|after|as of|as on|[-–—至到])\s{0,2}$",
                  re.IGNORECASE)
JOIN = compiled(r",?\s{0,2}(?:and|to|until|till|through|[-–—至到])\s{0,2}", re.IGNORECASE)  # a period's two ends
PERSON = compiled(r"(?<!\w)(?:he|she|his|her|him|patient|man|woman|boy|girl|child|infant|mother|father|Mrs?|Ms|DOB)"
                  r"(?!\w)|患者|病人|先生|女士", re.IGNORECASE)
STAY = compiled(r"(?<!\w)(?:born|admitted|discharged|died)(?!\w)|入院|出院|出生|就诊", re.IGNORECASE)
DOCTOR = compiled(r"(?<!\w)(?:Dr|Prof|Professor)(?!\w)", re.IGNORECASE)
MANY = compiled(r"(?<!\w)(?:patients|subjects|participants|cases|men|women|children|infants|newborns|adults|individuals"
                r"|people|births|deaths|records)(?!\w)", re.IGNORECASE)
FOUND = (r"(?:gave|discovered|described|proposed|introduced|invented|isolated|coined|developed|founded|postulated"
         r"|proved|demonstrated|formulated|named)")
ASKED = r"(?:which|what|whose|when|in which)"
SUBJECT = compiled(rf"(?:\s(?:first|originally|famously))?\s{FOUND}\s[^.?!]{{0,30}}?(?<!\w){ASKED}(?!\w)",
                   re.IGNORECASE)
OBJECT = compiled(rf"(?<!\w){ASKED}\s[^.?!]{{0,60}}?(?<!\w){FOUND}(?: first)? by\s$", re.IGNORECASE)
IN_OPTIONS = ("URL", "EMAIL", "ID", "PHONE")


def put(placeholder: str) -> Callable[[re.Match], str]:
    return lambda found: placeholder


def url(found: re.Match) -> str:
    """The full stop of the sentence is not the address's."""
    rest = found[0].rstrip(".,;:!?")
    return "[URL]" + found[0][len(rest) :]


def date(found: re.Match) -> str:
    """A study's period is nobody's date. Both of its ends see the same words around them, and one verdict results."""
    text, (start, end) = found.string, found.span()
    if joined := JOIN.match(text, end):
        end = max([end, *(other.end() for pattern in DATES if (other := pattern.match(text, joined.end())))])
    earliest = max(0, start - 40)
    start = min([start, *(other.start() for pattern in DATES for other in pattern.finditer(text, earliest, start)
                          if JOIN.fullmatch(text, other.end(), start))])
    before, after = text[max(0, start - 80) : start], text[end : end + 40]
    kept = PERIOD.search(before[-12:]) and not any(map(one_person, (before, after), (f"{before} {after}",) * 2))
    return found[0] if kept else "[DATE]"


def one_person(part: str, context: str) -> bool:
    """Is it about somebody? "Patients admitted between ..." are nobody."""
    return bool(PERSON.search(part) or DOCTOR.search(part) or STAY.search(part) and not MANY.search(context))


def person(found: re.Match) -> str:
    """Who treats somebody has no name; who is asked for as the discoverer of something has."""
    text, (start, end) = found.string, found.span()
    before, after = text[max(0, start - 80) : start], text[end : end + 80]
    discoverer = DOCTOR.match(found[1]) and (SUBJECT.match(after) or OBJECT.search(before))
    return found[0] if discoverer and not PERSON.search(before + " . " + after) else f"{found[1]}[NAME]"


def international(found: re.Match) -> str:
    """A plus sign and nine digits or more; "+21" is a chromosome, "+2 +3" a reflex."""
    return "[PHONE]" if sum(c.isdigit() for c in found[0]) >= 9 else found[0]


def told_phone(found: re.Match) -> str:
    return f"{found[1]}[PHONE]" if sum(c.isdigit() for c in found[2]) >= 7 else found[0]


RULES: tuple[tuple[str, re.Pattern, Callable[[re.Match], str]], ...] = (
    ("URL", URL, url),
    ("EMAIL", EMAIL, put("[EMAIL]")),
    ("ID", RECORD, lambda found: f"{found[1]}{found[2]}[ID]"),
    ("ID", RESIDENT, put("[ID]")),
    ("ID", SSN, put("[ID]")),
    ("PHONE", PHONE_PLUS, international),
    ("PHONE", PHONE_CN, put("[PHONE]")),
    ("PHONE", PHONE_US, put("[PHONE]")),
    ("PHONE", PHONE_TOLD, told_phone),
    ("PHONE", LANDLINE_CN, put("[PHONE]")),
    *(("DATE", pattern, date) for pattern in DATES),
    ("DATE", BORN, lambda found: f"{found[1]}[DATE]"),
    ("NAME", NAME, person),
    ("NAME", NAME_CN, put("[NAME]")),
    ("AGE", AGE, put("90+")),
    ("AGE", AGED, lambda found: f"{found[1]}90+"),
)


def anonymise_step(items: list[Item], *, workers: int = 1) -> Result:
    return each(anonymise, items, workers), []


def anonymise(item: Item) -> Item:
    """The item with placeholders; its lineage counts what was replaced, by kind."""
    if item.visible or item.path:
        return noted(item, STEP, replaced={}, left="proven by a graph")
    question, counts = replace(item.question)
    options = {label: replace(text, IN_OPTIONS) for label, text in item.options.items()}
    texts = {label: text for label, (text, _) in options.items()}
    if len({plain(text) for text in texts.values()}) < len({plain(text) for text in item.options.values()}):
        texts = item.options
    else:
        counts = sum((found for _, found in options.values()), counts)
    return noted(dataclasses.replace(item, question=question, options=dict(texts)), STEP,
                 replaced=dict(sorted(counts.items())))


def replace(text: str, kinds: tuple[str, ...] = ()) -> tuple[str, Counter]:
    """The text with placeholders, and how many of each kind; ``kinds`` empty: of all kinds."""
    counts: Counter = Counter()
    for kind, pattern, rule in RULES:
        if kinds and kind not in kinds:
            continue

        def counted(found: re.Match, kind=kind, rule=rule) -> str:
            new = rule(found)
            counts[kind] += new != found[0]
            return new
        text = pattern.sub(counted, text)
    return text, +counts
