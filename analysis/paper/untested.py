"""Claims of the paper that its published rows cannot test, and what its released code says of them."""

from analysis.paper.claims import NO_ROWS, Claim

_CODE = "None: the rows do not tell it."
_NOTHING = "None: there is nothing to test."

UNTESTED = (
    Claim(
        "Two models",
        "abstract, figures 3 and 15, appendix G",
        "Our results on 18 datasets and two models [...] Llama3-8B fine-tuned on classification tasks and evaluated on "
        "generation tasks decreases on average 61.0%",
        _NOTHING,
        "No row of Llama3-8B is published in any of the three tables: neither the 61.0 %, nor the 10.6 % from "
        "generation to classification. All that the rows can tell is about OLMo-1B.",
        NO_ROWS,
    ),
    Claim(
        "Reading labels by token probability is best",
        "section 3.3, table 3",
        "We find the best performance by selecting the label with the highest logit of its first subtoken",
        _NOTHING,
        "The columns Free and Constrained of Table 3 have no rows. The column TokenProb has (table3.csv); the released "
        "code takes every sub-token of every spelling of a label for a candidate, not the first one alone.",
        NO_ROWS,
    ),
    Claim(
        "Four shots are sampled",
        "section 5",
        "Four shots are randomly sampled from the datasets",
        _CODE,
        "In the released code the shots are the first four rows of the evaluated file, which are then scored too.",
        NO_ROWS,
    ),
    Claim(
        "Scores are accuracy and ROUGE-L",
        "section 3.3",
        "We use accuracy [...] for classification tasks [...] and ROUGE-L",
        _CODE,
        "In the released code a published score is the middle of an unseeded bootstrap interval (3,000 resamples), not "
        "the mean; all numbers here inherit that. The official table has plain accuracies.",
        NO_ROWS,
    ),
    Claim(
        "Instruction tuning is on TÜLU",
        "section 3.2",
        "We instruction-tune the model on TÜLU",
        _CODE,
        "The released code takes 5 % of tulu-v2-sft-mixture; the paper does not say so.",
        NO_ROWS,
    ),
)
