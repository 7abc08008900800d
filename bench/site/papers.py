"""Who is to be named: the papers behind objectives and pruners, and an entry itself, as BibTeX."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prunecert.bench.site.view import Row
from prunecert.models.pruners.taxonomy import VARIANTS


@dataclass(frozen=True)
class Paper:
    """A publication.

    Args:
        key: Its key in BibTeX.
        authors: In BibTeX's form, accents as TeX writes them; those from the fourth on may be `others`.
        title: Its title.
        year: Of the version that is cited.
        where: Journal or conference, or ``arXiv``.
        arxiv: Its number there, or an empty text.
    """

    key: str
    authors: str
    title: str
    year: int
    where: str
    arxiv: str = ""

    @property
    def url(self) -> str:
        """Where it can be read, or an empty text."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""

    @property
    def short(self) -> str:
        """Returns ``Sehwag et al. 2020``."""
        families = [name.partition(",")[0] for name in self.authors.split(" and ")]
        who = families[0] if len(families) == 1 else f"{families[0]} et al."
        if len(families) == 2 and families[1] != "others":
            who = " and ".join(families)
        return f"{_plain(who)} {self.year}"

    def bibtex(self) -> str:
        """Returns its entry."""
        lines = {"author": self.authors, "title": "{" + tex(self.title) + "}", "year": str(self.year)}
        lines |= {"booktitle": tex(self.where)} if self.where != "arXiv" else {}
        lines |= {"eprint": self.arxiv, "archivePrefix": "arXiv"} if self.arxiv else {}
        return _bibtex("inproceedings" if self.where != "arXiv" else "misc", self.key, lines)


_FLYING = Paper(
    "chen2022sparsity",
    "Chen, Tianlong and Zhang, Zhenyu and Wang, Pengjun and others",
    "Sparsity Winning Twice: Better Robust Generalization from More Efficient Training",
    2022,
    "International Conference on Learning Representations",
    "2202.09844",
)
_HAN = Paper(
    "han2015learning",
    "Han, Song and Pool, Jeff and Tran, John and Dally, William J.",
    "Learning both Weights and Connections for Efficient Neural Networks",
    2015,
    "Advances in Neural Information Processing Systems",
    "1506.02626",
)
_LI = Paper(
    "li2017pruning",
    "Li, Hao and Kadav, Asim and Durdanovic, Igor and Samet, Hanan and Graf, Hans Peter",
    "Pruning Filters for Efficient ConvNets",
    2017,
    "International Conference on Learning Representations",
    "1608.08710",
)
#: By pruner; those that are nobody's in particular are missing.
PRUNERS: Mapping[str, Paper] = {
    "anp-vs": Paper(
        "madaan2020adversarial",
        "Madaan, Divyam and Shin, Jinwoo and Hwang, Sung Ju",
        "Adversarial Neural Pruning with Latent Vulnerability Suppression",
        2020,
        "International Conference on Machine Learning",
    ),
    "ard": Paper(
        "goldblum2020adversarially",
        "Goldblum, Micah and Fowl, Liam and Feizi, Soheil and Goldstein, Tom",
        "Adversarially Robust Distillation",
        2020,
        "AAAI Conference on Artificial Intelligence",
    ),
    "boosting": Paper(
        "li2020towards",
        "Li, Bai and Wang, Shiqi and others",
        "Towards Practical Lottery Ticket Hypothesis for Adversarial Training",
        2020,
        "arXiv",
        "2003.05733",
    ),
    "connectivity": Paper(
        "ozdenizci2021training",
        '{\\"O}zdenizci, Ozan and Legenstein, Robert',
        "Training Adversarially Robust Sparse Networks via Bayesian Connectivity Sampling",
        2021,
        "International Conference on Machine Learning",
    ),
    "deadwooding": Paper(
        "kaur2022deadwooding",
        "Kaur, Sawinder and Fioretto, Ferdinando and Salekin, Asif",
        "Deadwooding: Robust Global Pruning for Deep Neural Networks",
        2022,
        "arXiv",
        "2202.05226",
    ),
    "drop-grow": Paper(
        "evci2020rigging",
        "Evci, Utku and Gale, Trevor and Menick, Jacob and Castro, Pablo Samuel and Elsen, Erich",
        "Rigging the Lottery: Making All Tickets Winners",
        2020,
        "International Conference on Machine Learning",
        "1911.11134",
    ),
    "filter-l1": _LI,
    "flying-bird": _FLYING,
    "flying-bird-plus": _FLYING,
    "grafting": Paper(
        "chen2022linearity",
        "Chen, Tianlong and Zhang, Huan and Zhang, Zhenyu and others",
        "Linearity Grafting: Relaxed Neuron Pruning Helps Certifiable Robustness",
        2022,
        "International Conference on Machine Learning",
        "2206.07839",
    ),
    "hydra": Paper(
        "sehwag2020hydra",
        "Sehwag, Vikash and Wang, Shiqi and Mittal, Prateek and Jana, Suman",
        "HYDRA: Pruning Adversarially Robust Neural Networks",
        2020,
        "Advances in Neural Information Processing Systems",
        "2002.10509",
    ),
    "inheritance": Paper(
        "wang2020achieving",
        "Wang, Shufan and Liao, Ningyi and others",
        "Achieving Adversarial Robustness via Sparsity",
        2020,
        "arXiv",
        "2009.05423",
    ),
    "lwm": _HAN,
    "lwm-global": _HAN,
    "lwm-iterative": _HAN,
    "lwm-rewind": Paper(
        "frankle2019lottery",
        "Frankle, Jonathan and Carbin, Michael",
        "The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks",
        2019,
        "International Conference on Learning Representations",
        "1803.03635",
    ),
    "mad": Paper(
        "lee2022masking",
        "Lee, Byung-Kwan and Kim, Junho and Ro, Yong Man",
        "Masking Adversarial Damage: Finding Adversarial Saliency for Robust and Sparse Network",
        2022,
        "IEEE/CVF Conference on Computer Vision and Pattern Recognition",
    ),
    "robust-bird": _FLYING,
    "sparse-vlr": Paper(
        "kaur2024vericompress",
        "Kaur, Sawinder and Xiao, Yi and Salekin, Asif",
        "VeriCompress: A Tool to Streamline the Synthesis of Verified Robust Compressed Neural Networks from Scratch",
        2024,
        "AAAI Conference on Artificial Intelligence",
        "2211.09945",
    ),
    "structured": _LI,
    "structured-filters": _LI,
    "structured-neurons": _LI,
}
#: By training objective.
OBJECTIVES: Mapping[str, Paper] = {
    "crown-ibp": Paper(
        "zhang2020towards",
        "Zhang, Huan and Chen, Hongge and Xiao, Chaowei and others",
        "Towards Stable and Efficient Training of Verifiably Robust Neural Networks",
        2020,
        "International Conference on Learning Representations",
        "1906.06316",
    ),
    "ibp": Paper(
        "gowal2018effectiveness",
        "Gowal, Sven and Dvijotham, Krishnamurthy and Stanforth, Robert and others",
        "On the Effectiveness of Interval Bound Propagation for Training Verifiably Robust Models",
        2018,
        "arXiv",
        "1810.12715",
    ),
    "mixtrain": Paper(
        "wang2018mixtrain",
        "Wang, Shiqi and Chen, Yizheng and Abdou, Ahmed and Jana, Suman",
        "MixTrain: Scalable Training of Verifiably Robust Neural Networks",
        2018,
        "arXiv",
        "1811.02625",
    ),
    "mtl-ibp": Paper(
        "depalma2024expressive",
        "De Palma, Alessandro and Bunel, Rudy and Dvijotham, Krishnamurthy and others",
        "Expressive Losses for Verified Robustness via Convex Combinations",
        2024,
        "International Conference on Learning Representations",
        "2305.13991",
    ),
    "pgd": Paper(
        "madry2018towards",
        "Madry, Aleksander and Makelov, Aleksandar and Schmidt, Ludwig and Tsipras, Dimitris and Vladu, Adrian",
        "Towards Deep Learning Models Resistant to Adversarial Attacks",
        2018,
        "International Conference on Learning Representations",
        "1706.06083",
    ),
    "sabr": Paper(
        "mueller2023certified",
        'M{\\"u}ller, Mark Niklas and Eckert, Franziska and Fischer, Marc and Vechev, Martin',
        "Certified Training: Small Boxes are All You Need",
        2023,
        "International Conference on Learning Representations",
        "2210.04871",
    ),
    "trades": Paper(
        "zhang2019theoretically",
        "Zhang, Hongyang and Yu, Yaodong and Jiao, Jiantao and others",
        "Theoretically Principled Trade-off between Robustness and Accuracy",
        2019,
        "International Conference on Machine Learning",
        "1901.08573",
    ),
}
#: What TeX would take for a command, and has no escape of one letter.
_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def tex(text: str) -> str:
    r"""Returns anybody's text as TeX sets it unchanged, without its braces.

    Example:
        >>> print(tex("50 % of $5 {or} so"))
        50 \% of \$5 or so
    """
    bare = text.replace("{", "").replace("}", "")
    return "".join(_SPECIAL.get(c, f"\\{c}" if c in "%$&#_" else c) for c in bare)


def _plain(name: str) -> str:
    """Returns a name with TeX's umlauts as letters."""
    for accent, letter in (('{\\"O}', "Ö"), ('{\\"u}', "ü")):
        name = name.replace(accent, letter)
    return name


def papers(row: Row) -> list[tuple[str, Paper]]:
    """Returns pairs (what of the entry it is about, paper): its pruner and its objective, where they are known."""
    places = (("pruner", PRUNERS, row.cell["pruner"]), ("objective", OBJECTIVES, row.cell["objective"]))
    origins = [(what, named, VARIANTS.get(name, (name, ""))[0]) for what, named, name in places]
    return [(what, named[name]) for what, named, name in origins if name in named]


def citation(entry: Mapping[str, Any], title: str) -> str:
    """Returns BibTeX for an entry of the board.

    Args:
        entry: The entry.
        title: What it is called, with all that tells it from others.
    """
    who = entry["method"].get("authors") or entry["by"] or "Anonymous"
    year = re.match(r"\d{4}", entry["protocol"]["started"])
    lines = {
        "author": tex(who) if entry["method"].get("authors") else "{" + tex(who) + "}",
        "title": "{" + tex(title) + "}",
        "year": year[0] if year else "",
        "howpublished": "Entry of the PruneCert leaderboard",
        "note": f"Entry {tex(entry['name'])}, SHA-256 {entry['digest'][:16]}",
        "url": re.sub(r"[{}\\]", "", entry["method"]["url"]),
    }
    return _bibtex("misc", f"prunecert-{entry['digest'][:8]}", {key: value for key, value in lines.items() if value})


def _bibtex(kind: str, key: str, lines: Mapping[str, str]) -> str:
    return "\n".join([f"@{kind}{{{key},", *(f"  {name} = {{{value}}}," for name, value in lines.items()), "}"])
