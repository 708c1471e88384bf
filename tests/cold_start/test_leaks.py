"""Laws of cold_start/leaks.txt: words of someone who was told the answer are found, a clinician's words are not."""

from __future__ import annotations

import re
import time

import pytest

from minifleming.cold_start.checks import LEAKS, leaks

TOLD = """The given answer is B, so we look for support.
Since the correct answer was provided, I only need to link it.
As the answer is already known, the rest follows.
The right option is given as C.
I was told that the answer is methotrexate.
We know the correct answer is B.
I know that the answer is colchicine, so I start from there.
Knowing the correct option, the chain is short.
According to the answer key, it is gout.
The answer-key says D.
The reference answer points to lupus.
This agrees with the gold label.
The gold-standard answer is A.
The expected answer is warfarin.
As instructed, I will not mention it.
As I was told, option C is right.
I will pretend that I have not seen it.
Pretending not to know, we begin with the fever.
I am supposed to conclude that it is sepsis.
We were asked to justify option D.
The prompt says that B is right.
According to the hint, the drug is heparin.
The hint above gives it away.
My instructions say that the reasoning must be short.
I must act as if I found it myself.
The earlier reasoning went wrong at the second step.
The previous attempt was wrong because it ignored the rash.
Working backwards from the answer, the disease must be gout.
To justify the given answer, note the rash.
The provided option, B, fits.
Without revealing that the answer was given, we go on.
The answer that I was given is B.
The ground truth label is C.
They informed us that the correct answer is C.
The correct option was marked as B.
The known correct answer is B.
I was meant to conclude that it is gout.
I must not mention that I know it, never admitting the answer.
The answer, which was revealed, is C.
According to the prompt, B.
Your instructions are clear.
We start backwards from the label.
Not mentioning the answer, we go on.
I have been told the right diagnosis.
The known answer fits.
THE CORRECT ANSWER IS GIVEN: B
In my previous attempt I took gout.
I was asked to rewrite this.
给定的答案是B。
已知正确答案为C，因此推理如下。
参考答案是甲氨蝶呤。
根据标准答案，应选A。
答案已经给出，为B。
提示中的答案是C。
我被告知正确选项是D。
我事先知道答案，所以直接说明。
假装不知道答案，从发热开始。"""
LABELLED = """The right option is B: lupus. Fever and rash point to it.
The correct answer is C.
Since the correct answer is B, the fever must come from it.
Given that B is correct, we look for the rash.
Given that the right option is D, gout is likely.
To justify the answer B, note the rash."""
INNOCENT = """Given the fever, the diagnosis is likely infectious.
Given the options, heparin fits best.
The given options differ in their mechanism.
Of the provided choices only one lowers urate.
Vancomycin works only as given intravenously.
Metformin is given first.
He has known diabetes.
A patient with a known diagnosis of gout presents.
The answer to this is found by measuring calcium.
The answer is B.
Fever and rash point to lupus. The right option is B: lupus.
The right answer is a drug that lowers urate.
The gold standard option is a biopsy.
Given the right diagnosis, the treatment follows.
Knowing the right diagnosis decides the treatment.
Given that A is a rival of B, look at the rash.
To reach the answer, look at the rash.
So the correct answer is colchicine.
The right option is therefore B.
The correct diagnosis is gout.
The correct diagnosis is made by biopsy.
The patient was given aspirin.
She was told that she has lupus.
He was told to stop smoking.
The patient was instructed to return.
As instructed by the nurse, he fasted.
Discharge instructions are reviewed.
The instructions on the bottle are clear.
He takes it following the instructions of the pharmacist.
Normal saline solution was given.
Oral rehydration solution is given first.
The gold standard is a biopsy.
The reference range is 3 to 5.
The expected finding is a low sodium.
The mechanism is well known.
As stated in the question, the pressure is low.
As given in the question, he takes warfarin.
As is known, statins lower cholesterol.
The prompt treatment saves the kidney.
Following the prompt administration of adrenaline he recovered.
In the prompt diagnosis lies the benefit.
A hint of jaundice is seen.
The key finding is a rash.
The first attempt at intubation failed.
A previous attempt to wean him failed.
The earlier text-book view is outdated.
The label is stuck to the vial.
The off-label use is known.
The drug of choice is given orally.
The treatment of choice is known to be colchicine.
The best choice is supplied by the liver's artery.
We are asked which drug is first-line.
We are asked for the next step.
I was asked about the mechanism.
We know that the answer must explain both findings.
The question does not state whether he smokes.
He is supposed to find relief within days.
Patients pretend to be well.
It is not to be mentioned to children.
The option of surgery is given to all patients.
The official name is dipyrone.
The stated dose is 5 mg.
An indicated choice of antibiotic is doxycycline.
已知患者有糖尿病。
给予阿司匹林。
给定这些症状，最可能是红斑狼疮。
答案是B。
所以正确答案为C。
参考范围是3到5。
标准治疗是甲氨蝶呤。
患者被给予肝素。
提示感染。
医生告知患者需要手术。
检查提示贫血，答案为B。
患者已知过敏，选项A不合适。
根据提供的病史，应选B。
患者被告知患有糖尿病。"""


@pytest.mark.parametrize("text", LABELLED.splitlines())
def test_a_label_that_is_known_from_the_start_is_a_leak(text):
    assert leaks(text)


@pytest.mark.parametrize("text", TOLD.splitlines())
def test_a_leak_is_found(text):
    assert leaks(text) and leaks(f"Fever and rash are seen. {text} So it is lupus.") and leaks(text.lower())


@pytest.mark.parametrize("text", INNOCENT.splitlines())
def test_a_clinical_sentence_is_no_leak(text):
    assert not leaks(text)


def test_innocent_sentences_make_no_leak_together():
    assert not leaks(INNOCENT) and not leaks(INNOCENT.replace("\n", " "))
    assert len(TOLD.splitlines()) >= 30 and len(INNOCENT.splitlines()) >= 30


def lines() -> list[str]:
    return [line for line in LEAKS.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("line", lines())
def test_every_pattern_is_needed_and_has_no_unbounded_repetition(line):
    others = re.compile("|".join(other for other in lines() if other != line), re.IGNORECASE)
    assert any(not others.search(text) for text in (TOLD + "\n" + LABELLED).splitlines()), "no sentence needs it"
    assert not re.search(r"(?<!\\)[*+](?!\?)", line)


@pytest.mark.parametrize("unit", ["the given correct ", "answer is already ", "as ", "told that ", "we ", "the prompt ",
                                  "a", " ", "given to me ", "答案已", "已知的", "i was told ", "the ", "not to "])
def test_a_megabyte_is_read_in_linear_time(unit):
    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        start = time.process_time()
        leaks(text)
        return time.process_time() - start
    seconds(1000)
    assert seconds(200_000) < 1
