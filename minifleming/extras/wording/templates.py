"""The words of questions beyond the plain style: several for each relation, and Chinese. Used by wording.py alone.

    ASKED[("first_line_treatment", True)] = ("How is {of} treated first?", ...)      forward: the tail is asked for
"""

from minifleming.rods.phrases import link

DIAGNOSIS = ("Which disease is it?", "What is the most likely diagnosis?", "Which diagnosis fits these findings best?",
             "Which disease explains all of these findings?")
FRAMES = ("{who} has {found}.", "{who} presents with {found}.", "{who} is found to have {found}.",
          "{who} comes to the clinic with {found}.")
GENERIC = ("What is the {noun}?", "Which of the following is the {noun}?", "Name the {noun}.")
FORTH = {  # the tail of a relation, by its head, where "LINK of" is not what one says
    "explains": "finding that {of} explains", "detects": "finding that {of} detects",
    "palliates": "disease that {of} palliates", "binds": "protein that {of} binds",
    "expresses": "gene that {of} expresses", "participates_in": "process that {of} takes part in",
    "resembles": "disease that {of} resembles", "interacts_with": "gene that interacts with {of}",
    "includes": "member of {of}", "regulates": "gene that {of} regulates", "upregulates": "gene that {of} upregulates",
    "downregulates": "gene that {of} downregulates", "covaries_with": "gene that covaries with {of}",
    "inhibitor_of": "protein that {of} inhibits", "agonist_of": "receptor that {of} activates",
    "antagonist_of": "receptor that {of} blocks", "blocker_of": "channel that {of} closes",
    "opener_of": "channel that {of} opens", "activator_of": "protein that {of} stimulates",
    "positive_allosteric_modulator_of": "receptor that {of} enhances",
}
JOINED = {True: "(the one that {of} is joined to)", False: "(the one that is joined to {of})"}  # by what has no words
BACK = {  # the head of a relation, by its tail
    "has_mechanism": "disease that arises from {of}", "explains": "mechanism that explains {of}",
    "confirmed_by": "disease that is confirmed by {of}", "detects": "test that detects {of}",
    "first_line_treatment": "disease first treated with {of}", "drug_mechanism": "drug that works by {of}",
    "acts_on": "action directed at {of}", "contraindicated_in": "drug contraindicated in {of}",
    "adverse_effect": "drug that may cause {of}", "caused_by": "disease caused by {of}",
    "encodes": "gene that encodes {of}", "transmitted_by": "agent that spreads by {of}",
    "affects": "disease that affects {of}", "associated_gene": "disease associated with {of}",
    "has_inheritance": "disease that follows {of}", "has_onset": "disease that begins with {of}",
    "treats": "drug given for {of}", "palliates": "drug that palliates {of}",
    "treats_off_label": "drug given off label for {of}", "targets": "drug that targets {of}",
    "binds": "compound that binds {of}", "located_in": "disease located in {of}", "has_cause": "disease caused by {of}",
    "expresses": "tissue that expresses {of}", "interacts_with": "gene that interacts with {of}",
    "participates_in": "gene that takes part in {of}", "resembles": "disease that resembles {of}",
    "includes": "class that includes {of}", "regulates": "gene that regulates {of}",
    "covaries_with": "gene that covaries with {of}", "upregulates": "one that upregulates {of}",
    "downregulates": "one that downregulates {of}", "has_feature": "disease that has {of} as a feature",
    "triggered_by": "disease triggered by {of}",
}
ASKED = {
    ("has_mechanism", True): ("By which mechanism does {of} arise?", "What underlies {of}?"),
    ("has_mechanism", False): ("Which disease arises from {of}?",),
    ("explains", True): ("Which finding is explained by {of}?",),
    ("explains", False): ("Which mechanism explains {of}?",),
    ("confirmed_by", True): ("How is {of} confirmed?", "Which test confirms {of}?"),
    ("confirmed_by", False): ("Which disease is confirmed by {of}?",),
    ("detects", True): ("What does {of} detect?", "Which finding is detected by {of}?"),
    ("detects", False): ("Which test detects {of}?",),
    ("first_line_treatment", True): ("How is {of} treated first?", "Which treatment is first choice for {of}?"),
    ("first_line_treatment", False): ("Which disease is first treated with {of}?",),
    ("drug_mechanism", True): ("How does {of} act?", "By which action does {of} work?"),
    ("drug_mechanism", False): ("Which drug works by {of}?",),
    ("acts_on", True): ("What does {of} act on?", "Which molecule is the target of {of}?"),
    ("acts_on", False): ("Which action is directed at {of}?",),
    ("contraindicated_in", True): ("In which condition must {of} not be given?",),
    ("contraindicated_in", False): ("Which drug is contraindicated in {of}?",),
    ("adverse_effect", True): ("Which adverse effect may follow {of}?", "What harm may {of} cause?"),
    ("adverse_effect", False): ("Which drug may cause {of}?",),
    ("caused_by", True): ("What causes {of}?", "To which cause is {of} due?"),
    ("caused_by", False): ("Which disease is due to {of}?",),
    ("encodes", True): ("Which protein does {of} encode?", "What is the product of {of}?"),
    ("encodes", False): ("Which gene encodes {of}?",),
    ("transmitted_by", True): ("How does {of} spread?", "By which route is {of} transmitted?"),
    ("transmitted_by", False): ("What spreads by way of {of}?",),
    ("affects", True): ("Which organ does {of} mainly affect?", "Where in the body is {of} found?"),
    ("affects", False): ("Which disease affects {of}?",),
    ("associated_gene", True): ("Variants of which gene are associated with {of}?", "Which gene is linked to {of}?"),
    ("associated_gene", False): ("Which disease is associated with {of}?",),
    ("has_inheritance", True): ("How is {of} inherited?", "Which mode of inheritance does {of} follow?"),
    ("has_onset", True): ("When does {of} begin?", "At which time of life does {of} start?"),
    ("treats", True): ("For which disease is {of} given?",),
    ("treats", False): ("Which drug is given for {of}?",),
    ("located_in", True): ("Where is {of} located?",),
    ("has_cause", True): ("What causes {of}?",),
}

# The youngest and the oldest age, in years, at which a patient is told of, by the onset terms of the Human Phenotype
# Ontology: not before the onset, and late enough for most findings to be seen.
AGES = {
    "Antenatal onset": (1, 9), "Congenital onset": (1, 9), "Neonatal onset": (1, 9), "Infantile onset": (1, 9),
    "Childhood onset": (2, 12), "Juvenile onset": (6, 15), "Adult onset": (18, 75), "Young adult onset": (17, 39),
    "Early young adult onset": (17, 24), "Intermediate young adult onset": (19, 30),
    "Late young adult onset": (25, 39), "Middle age onset": (41, 59), "Late onset": (61, 80),
}
ADULT = 16
PATIENTS = {
    "child": {"woman": "girl", "man": "boy", "patient": "child"},
    "adult": {"woman": "woman", "man": "man", "patient": "patient"},
}
FEMALE = (r"(?:ovar(?:y|ies|ian)|\buter(?:us|ine|i)\b|vagin|vulv|menstru|menorrh|menarche|metrorrhag|menopaus|pregnan|"
          r"gestational (?!age)|eclamp|endometri|postpartum|cervical (?:cancer|motion)|fallopian|clitor|\blabia\b|"
          r"\bfemale|Turner syndrome|Rett syndrome)")
MALE = (r"(?:prostat|testic|\btestis|\btestes|penile|penis\b|scrot(?!al tongue|alis)|sperm|hypospadias|cryptorchid|"
        r"orchi(?:tis|dism)|anorchi|Klinefelter|erectile|ejaculat|priapism|\bphimosis|\bmale\b|gynecomastia|epididym|"
        r"varicocele)")
NOT_FOUND = (r"(?:\bfetal|\bfetus|intrauterine|in utero|prenatal|antenatal|stillb|polyhydramnios|oligohydramnios|"
             r"nuchal translucency|sudden (?:cardiac )?death|\bdeath\b|\blethal)")  # not in a patient at the clinic
MALE_INHERITANCE = {"X-linked recessive inheritance", "Y-linked inheritance"}

ZH_FRAMES = ("患者有以下表现：{found}。", "患者出现：{found}。", "检查发现患者有：{found}。")
ZH_ASKED = ("{before}是什么？", "下列哪一项是{before}？", "请指出{before}。")
KINDS_ZH = {"Disease": "疾病"}
LINKS_ZH = {  # relation: (tail asked for, head asked for)
    "has_mechanism": ("发病机制", "对应疾病"), "explains": ("所解释的表现", "背后机制"),
    "confirmed_by": ("确诊检查", "所确诊的疾病"), "detects": ("检出结果", "检测方法"),
    "first_line_treatment": ("一线治疗", "所治疗的疾病"), "drug_mechanism": ("作用机制", "具有该作用的药物"),
    "acts_on": ("作用靶点", "针对该靶点的作用"), "contraindicated_in": ("禁忌证", "禁用药物"),
    "adverse_effect": ("不良反应", "可致该反应的药物"), "caused_by": ("病因", "所引起的疾病"),
    "encodes": ("编码蛋白", "编码基因"), "transmitted_by": ("传播途径", "经该途径传播的病原体"),
    "affects": ("受累器官", "累及该器官的疾病"), "associated_gene": ("相关基因", "与该基因相关的疾病"),
    "has_inheritance": ("遗传方式", "以该方式遗传的疾病"), "has_onset": ("起病时期", "于该时期起病的疾病"),
    "treats": ("适应证", "治疗药物"), "located_in": ("发病部位", "位于该部位的疾病"),
}


def says(question: str, relation: str, forward: bool) -> bool:
    """Does the question speak of this relation, in this direction, by one of the wordings of any style?"""
    if relation in LINKS_ZH and LINKS_ZH[relation][0 if forward else 1] in question:
        return True
    own = (FORTH if forward else BACK).get(relation, "").replace(" ", "{of}", 1)  # a pin may stand there
    text = question.casefold()
    return any(all(part.strip(" ?").casefold() in text for part in form.split("{of}"))
               for form in (link(relation, forward), own, *ASKED.get((relation, forward), ())) if form)
