"""The page's standing texts, as HTML: how to read it, its limits, and what the original study got wrong."""

from analysis import stats

HOW_TO_READ = f"""
<p><b>BASE</b> is a pre-trained checkpoint as it is; <b>tuned</b> is the same checkpoint after training on a dataset.
To a dataset a task is <b>id</b> (its own kind of data), <b>ood</b> (the same task on other data), <b>cross_task</b>
(another dataset's task) or <b>benchmark</b> (multiple choice, no dataset's task). Scores lie between 0 and 1: accuracy
for labels and choices, ROUGE-L for text. Brackets hold 95 % intervals over examples; n counts examples; every
comparison pairs the same examples. A choice is also read with its likelihood divided by its length
(<b>accuracy_norm</b>, which is shown and never judged). <b>Chance</b> is the share of the most frequent label; of a
choice, one in as many as there are, or the share of the most frequent answer (yes, no) where that is more; or the
ROUGE-L of one reference against another one.
<b>Gain</b> is (tuned − BASE) / (1 − chance): the share of the room above chance that tuning adds.</p>
<dl>
<dt>◆ learned in pre-training</dt><dd>the last BASE beats the first BASE and chance by more than
{stats.MARGIN:g}</dd>
<dt>▲ learned in fine-tuning</dt><dd>the last tuned beats the last BASE by more than {stats.MARGIN:g}; where BASE is
below chance that need not be an ability, so <i>tuned is not above chance</i> stands beside it where it is not shown to
beat chance by more than {stats.MARGIN:g}</dd>
<dt>✚ both</dt><dd>both of these</dd>
<dt>○ not learned</dt><dd>the 95 % intervals exclude a rise of BASE or that BASE is above chance, and a gain or that
tuned is above chance, each by {stats.MARGIN:g}; this is not corrected over tasks</dd>
<dt>? undecided</dt><dd>anything else: these examples cannot tell</dd>
<dt>latent</dt><dd>from the first to the last checkpoint tuned scores rise by more than {stats.MARGIN:g}, also beyond
BASE's rise, while a rise of BASE is not shown</dd>
</dl>
<p>The tests behind verdicts are one-sided, with Holm's correction over tasks, α = {stats.ALPHA:g}; the p-values of
shots, of turned answers and of MRC are two-sided and not corrected. A task that nothing was tuned for is
judged by BASE alone. <b>MRC</b> is the mean over tasks of (tuned − BASE) / BASE, which explodes where BASE is near 0;
the median is beside it. A <b>turning point</b> is the first checkpoint that no later one beats by more than
{stats.MARGIN:g}; it lies somewhere after the checkpoint before it. The <b>best buy</b> is the earliest checkpoint whose
tuned score is not worse than the best by {stats.MARGIN:g}.</p>"""
LIMITS = """
<p>Intervals and tests are over examples, as if these were independent and the seeds given: they say what other examples
would change, not what other training runs would. A verdict that rests on one seed says so. Chance levels are taken
as known. Verdicts compare the first and the last checkpoint only. MRC averages the tasks with a BASE above 0 and names
the others. Means over tasks use the tasks that are there; the tables name those that are not. Rows that differ in
dtype, shots or chat template are never compared.</p>"""
NURSERY = """
<p class="note"><b>This is a positive control.</b> The family <i>nursery</i> is a very small model raised on a little
invented world in which it is known what can be learned. It shows that the instruments work, and it says nothing about
real models.</p>"""
ORIGINAL = """
<p>This study repeats that of “Amuro &amp; Char” (Sun and Dredze, arXiv 2408.06663). Its code and tables, read closely,
hold mistakes that change what may be concluded. Amuro's own runs do not repeat them.</p>
<ol>
<li><b>Two test sets had no labels.</b> QQP and STS-B were scored on test splits in which every label is −1, so every
right answer became “no”, and their “accuracy” is how often a model says no. That tuning on PAWS harms other paraphrase
data rests on these two. <i>Here: their labelled validation splits.</i></li>
<li><b>The examples in the prompt were scored too.</b> The four shots are the first four rows of the test set. <i>Here:
a scored row is never a shot.</i></li>
<li><b>A score is the middle of an interval,</b> of a bootstrap without a seed, not the mean. <i>Here: the mean, with a
Wilson or a seeded bootstrap interval.</i></li>
<li><b>Group means count SciQ twice.</b> Table 6 comes out only so. <i>Here: every task once.</i></li>
<li><b>Means are taken over whichever results exist.</b> <i>Here: what is missing is counted and named.</i></li>
<li><b>Single runs are read as facts.</b> Two checkpoints 20 steps apart (738000 and main) differ by up to .146 in the
same table: that is the noise of one run. <i>Here: seeds, intervals, and verdicts that say “undecided”.</i></li>
<li><b>Results were read back out of file names,</b> and errors around result files were passed over in silence.
<i>Here: every number carries what it is of, and what is unsound is refused.</i></li>
</ol>"""
