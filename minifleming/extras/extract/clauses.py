"""What of a sentence is asserted, and of whom: page-wide linking, pronouns for the title, and dead spans.

    "It does not cause fever but presents with a rash."      on the page "Gout"
     ^ gout   ~~~~~~~~~~~~~~                                 ~ dead: no triple may touch it

A dead span starts at a word such as "not", "without" or "unlike" and ends where the clause turns ("but", a new verb
after "and"; for "unlike", the comma). Questions, hypotheses and denials of a whole statement are dead altogether.
Doubt makes a span dead: a missed triple costs less than a false one.
"""

from __future__ import annotations

import re

from minifleming.extras.extract.lexicon import Lexicon, Mention
from minifleming.extras.extract.pages import Page

Span = tuple[int, int]
LONGEST = 2000  # characters; a longer "sentence" is no prose

IT = re.compile(r"\b(?:it|its)\b(?! (?:is|was|has been) (?:not |un)?(?:known|clear|thought|believed|likely|important))",
                re.IGNORECASE)
UNSAID = re.compile(r"\W*(its?|they|their|he|she|this|these|that|both)\b", re.IGNORECASE)  # as a first word
PERSONS = (r"(?:affected |most |many |some |all |these |other |older |young )*\b(?:patients|individuals|people|"
           r"persons|sufferers|children|adults|infants)\b"
           r"(?! (?:with|who|whose|on|in|taking|receiving|treated|without|under)\b)")
PERSONS_WITH = re.compile(r"\b(?:patients|individuals|people|persons|children|adults|infants) (?:with|who have) ", re.I)
STANDS_FOR = {  # by the type of the title's entity
    "Disease": re.compile(r"\b(?:the|this) (?:disease|disorder|condition|illness|infection|syndrome|diagnosis)\b"
                          rf"(?! of\b)|{PERSONS}", re.IGNORECASE),
    "Drug": re.compile(r"\b(?:the|this) (?:drug|medicine|medication|agent|compound)\b", re.IGNORECASE),
}
NOUNS = {  # "the drug": the last one that the page names, by type
    "Drug": re.compile(r"\b(?:the|this) (?:drug|medicine|medication|agent|compound)\b", re.IGNORECASE),
    "Pathogen": re.compile(r"\b(?:the|this) (?:organism|bacteri(?:um|a)|parasite|virus|fungus|pathogen)\b", re.I),
    "Gene": re.compile(r"\b(?:the|this) gene\b", re.IGNORECASE),
}
ACTORS = ("Disease", "Drug", "Pathogen", "Gene")  # a later "it" may mean one of these

ASSUMED = re.compile(  # the whole sentence is asked, supposed, denied or reported as an opinion
    r"\?[\"')\u201d]*$|^\W*(?:if|whether|suppose|supposing|assuming|imagine|could|does|do(?! not)|did|is|are|can|may)\b"
    r"|\bno (?:good |clear |convincing |firm )?(?:evidence|proof|sign|suggestion|indication)\b"
    r"|\bnot (?:true|proven|proved|known|clear|certain|established|the case|been shown)\b"
    r"|\b(?:whether|would|hypothe\w+|myth|untrue|false|falsely|wrong|wrongly|mistaken\w*|doubt(?:s|ed)?|unproven"
    r"|unknown|unclear|unlikely|questionable|refuted|disproved|speculat\w+|allegedly|supposedly|conjecture)\b"
    r"|\b(?:was|were|been|is|are) (?:once |long |formerly |previously |also )?(?:thought|believed|suggested|proposed"
    r"|claimed|considered a possible|assumed)\b|\bused to (?:be|believe|think)\b", re.IGNORECASE)
# These deny a treatment and so assert a contraindication.
MODAL = r"(?<!must )(?<!should )(?<!may )(?<!\bdo )"
DENIAL = re.compile(
    rf"\b{MODAL}(?:not|never)\b(?! (?:only|uncommon|unusual|infrequent|surprising|recommended|advised|suitable|safe)\b)"
    r"|\b(?:not|never)\b(?! (?:only|uncommon|unusual|infrequent|surprising|be (?:given|used|taken|prescribed)"
    r"|(?:recommended|advised|suitable|safe|give|use|prescribe|combine|start|administer)\b))"
    r"|\b(?:cannot|no(?! (?:longer|doubt)\b)|nor|neither|none|without|lacks?|lacking|absen(?:ce|t)|free (?:of|from)"
    r"|spares?|sparing|excludes?|excluded|rules? out|ruled out|against|denies|fails? to|failed to|instead of"
    r"|rather than|other than|apart from|except|excepting|rarely|seldom|hardly|scarcely|prevents?|prevented|mimics?"
    r"|resembles?|look like|distinguish\w*|separates?|if|unless|in case|so that|as opposed to|contrary to|unlike"
    r"|as in|similar to|differential|confused with"
    r"|in contrast (?:to|with)|unrelated to|compared (?:to|with)|than)\b|n't\b|n\u2019t\b", re.IGNORECASE)
OTHERS = re.compile(r"unlike|in contrast|as opposed|contrary|compared|apart from|except|other than", re.IGNORECASE)
VERB = (r"(?:(?:is|are|was|were|be|has|have|had|may|can|will|must|should|do|does|did|remains?|comes?|includes?|shows?"
        r"|presents?|causes?|caused|affects?|responds?|leads?|reveals?|confirms?|occurs?|acts?|works?|treats?|encodes?"
        r"|detects?|inhibits?|produces?|develops?|spreads?|explains?|follows?|ensues?|points?|results?|involves?"
        r"|suffers?|requires?|receives?|needs?|gives?)\b)")
TURN = re.compile(
    r"\bbut\b|;|\b(?:however|although|though|whereas|while|yet)\b"
    rf"|,? \b(?:and|or|then|nor)\b (?=(?:it|they|its)?\s*(?:\w+ly |often |also |sometimes )?{VERB})"
    r"|, (?:which|who|whose|since|because|where)\b|\b(?:which|who)\b", re.IGNORECASE)
RESUMED = re.compile(rf", (?=(?:\w+ly |often |also )?(?:{VERB}|[a-z]+(?:[^s\W]s|es) (?:the|a|an)\b))")
AND = re.compile(r", (?:and|while) ", re.IGNORECASE)  # before a name and its verb


def link(lexicon: Lexicon, page: Page) -> list[list[Mention]]:
    """The mentions of every sentence of a page, from left to right.

    Names and the page's own abbreviations; "it", "the disease", "patients" for the title's entity; and, where the
    sentence names nothing else of the title's type, an empty mention of the title at its start:
    "Symptoms include fever."
    """
    texts = [sentence.text for sentence in page.sentences]
    abbreviations = lexicon.abbreviations([page.title, *texts])
    title = title_entity(lexicon, page.title)
    latest: dict[str, tuple[str, ...]] = {}  # by type
    found, topic = [], title  # topic: what an "it" at the start of the next sentence stands for
    for text in texts:
        named = with_nouns(text, lexicon.find(text, abbreviations), latest, lexicon.types[title] if title else "")
        latest.update((lexicon.types[m.names[0]], m.names) for m in named)
        if title:
            named = with_title(text, named, title, lexicon.types, topic)
        subject = next((m.names for m in named if m.end > m.start and lexicon.types[m.names[0]] in ACTORS), None)
        topic = title if subject in (None, (title,)) else None
        found.append(named)
    return found


def title_entity(lexicon: Lexicon, title: str) -> str | None:
    """The node that the title names, if it names one and, brackets aside, nothing else."""
    named = lexicon.find(title)
    if not named or len(named[0].names) != 1:
        return None
    rest = re.sub(r"\([^)]*\)", "", title[: named[0].start] + title[named[0].end :])
    return None if re.search(r"\w", rest) else named[0].names[0]


def with_nouns(text: str, named: list[Mention], latest: dict[str, tuple[str, ...]], kind: str) -> list[Mention]:
    """With "the drug", "the organism" and so on for the last one named; not for the title's own type."""
    spans = [(match.span(), latest[noun]) for noun in NOUNS if noun in latest and noun != kind and len(text) <= LONGEST
             for match in NOUNS[noun].finditer(text)]
    taken = [(m.start, m.end) for m in named]
    return sorted([*named, *(Mention(*span, names) for span, names in spans if not touches(taken, *span))])


def with_title(text: str, named: list[Mention], title: str, types: dict[str, str], topic: str | None) -> list[Mention]:
    kind = types[title]
    if len(text) > LONGEST:
        return named
    rivals = [m for m in named if any(types[n] == kind and n != title for n in m.names)]
    spans = [match.span() for match in STANDS_FOR[kind].finditer(text)] if kind in STANDS_FOR else []
    for match in IT.finditer(text):
        before = [m for m in named if m.end <= match.start()]
        other = any(n != title and types[n] in ACTORS for m in before for n in m.names)
        if not other and (topic or any(m.names == (title,) for m in before)):
            spans.append(match.span())
    taken = [(m.start, m.end) for m in named]
    pronouns = [Mention(*span, (title,)) for span in spans if not touches(taken, *span)]
    first = UNSAID.match(text)
    unresolved = first and not topic and not (pronouns and pronouns[0].start == first.start(1))
    silent = rivals or unresolved or (kind == "Disease" and chosen(text, named))
    implied = [] if silent else [Mention(0, 0, (title,))]
    return sorted([*named, *pronouns, *implied], key=lambda m: (m.start, m.end))


def chosen(text: str, named: list[Mention]) -> bool:
    """Are the persons of the sentence picked by something else: "patients with malaise"?"""
    starts = {m.start for m in named}
    return any(match.end() in starts for match in PERSONS_WITH.finditer(text))


def assumed(text: str) -> bool:
    """Is the sentence as a whole asked, supposed or denied?"""
    return ASSUMED.search(text) is not None


def dead_spans(text: str, mentions: list[Mention]) -> list[Span]:
    """The parts of a sentence that it does not assert, in order. Words within a name are no cue."""
    inside = [(m.start, m.end) for m in mentions if m.end > m.start]
    found: list[Span] = []
    for cue in DENIAL.finditer(text):
        if any(start <= cue.start() < end for start, end in inside) or (found and cue.start() < found[-1][1]):
            continue
        comma = text.find(",", cue.end()) if OTHERS.match(cue[0]) else -1
        turn = TURN.search(text, cue.end())
        ends = [at for at in (comma, turn.start() if turn else -1) if at >= 0]
        found.append((cue.start(), min(ends, default=len(text))))
    return found


def clause_spans(text: str, named: list[Mention]) -> list[tuple[int, int, bool]]:
    """Where the clauses of a sentence start and end, and whether each has a verb of its own. No cut within a name."""
    inside = [(m.start, m.end) for m in named]
    cuts = {m.start() for rule in (TURN, RESUMED) for m in rule.finditer(text)}
    for a in named:  # "..., and rash is a sign of leprosy"
        joint = AND.search(text, max(0, a.start - 30), a.start)
        if joint and re.match(rf"\s*{VERB}", text[a.end : a.end + 20]) and re.search(
                rf"\b{VERB}", text[max((c for c in cuts if c < joint.start()), default=0) : joint.start()]):
            cuts.add(joint.start())
    places = [0, *sorted(cut for cut in cuts if cut and not touches(inside, cut, cut + 1)), len(text)]
    return [(a, b, re.search(rf"\b{VERB}", text[a:b]) is not None) for a, b in zip(places, places[1:])]


def touches(spans: list[Span], start: int, end: int) -> bool:
    return any(low < end and start < high for low, high in spans)
