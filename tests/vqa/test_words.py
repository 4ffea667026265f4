import pytest

from ffaa.vqa.words import pairs, sentences, tag, words

# Words with their class, by hand. N noun, A adjective, V verb, O other. The rules of `words` were made on FIRST.
FIRST = """
the/O face/N is/V softer/A than/O its/O surroundings/N as/O after/O a/O resampled/A face/N was/V put/V in/O
light/N falls/V in/O from/O the/O left/N of/O the/O frame/N
the/O cheeks/N show/V strong/A fine/A residue/N that/O skin/N does/V not/O explain/V
details/N of/O the/O face/N are/V fairly/O clear/A
the/O picture/N shows/V a/O single/A face/N at/O close/A range/N
the/O person's/O eyes/N look/V blurry/A and/O lack/V details/N
the/O skin/N is/V overly/O smooth/A and/O lacks/V texture/N
there/O are/V clear/A boundaries/N around/O the/O cheek/N
the/O person/N has/V arched/A eyebrows/N oval/A eyes/N and/O a/O straight/A nose/N
high/A frequencies/N fall/V off/O early/O so/O fine/A camera/N detail/N is/V missing/A
skin/N colour/N stays/V the/O same/A from/O forehead/N to/O chin/N
a/O blended/A face/N area/N stands/V apart/O from/O the/O rest/N of/O the/O head/N
the/O left/A eye/N reflects/V a/O bright/A lamp/N while/O the/O right/A eye/N stays/V dark/A
soft/A light/N casts/V a/O gentle/A shadow/N under/O the/O chin/N
the/O background/N appears/V blurred/A and/O the/O hair/N looks/V natural/A
a/O woman/N with/O long/A dark/A hair/N faces/V the/O camera/N and/O smiles/V slightly/O
noise/N on/O the/O face/N matches/V that/O of/O its/O surroundings/N
visible/A seams/N along/O the/O jaw/N suggest/V a/O swapped/A face/N
the/O teeth/N blur/V into/O one/O white/A band/N
residual/A patterns/N repeat/V across/O the/O whole/A image/N
"""
SECOND = """
the/O young/A man/N wears/V round/A glasses/N and/O looks/V away/O from/O the/O lens/N
fine/A wrinkles/N appear/V beside/O both/O eyes/N
his/O beard/N has/V an/O uneven/A outline/N near/O the/O mouth/N
the/O pupils/N point/V in/O different/A directions/N
a/O warm/A glow/N covers/V the/O upper/A half/N of/O the/O image/N
the/O edges/N of/O the/O hair/N melt/V into/O the/O wall/N
compression/N leaves/V small/A square/A blocks/N on/O the/O cheeks/N
the/O ears/N differ/V in/O shape/N and/O height/N
no/O seam/N separates/V the/O neck/N from/O the/O jaw/N
the/O smile/N reveals/V irregular/A teeth/N with/O blurred/A borders/N
skin/N tone/N changes/V abruptly/O at/O the/O hairline/N
the/O lighting/N matches/V the/O shadows/N behind/O her/O shoulder/N
an/O added/A pattern/N repeats/V every/O eight/O pixels/N
her/O forehead/N shines/V under/O strong/A light/N
"""


LETTERS = {"noun": "N", "adjective": "A", "verb": "V", "other": "O"}


def right(sample):
    """(words in the right class, words)."""
    hits = count = 0
    for line in sample.strip().splitlines():
        gold = [pair.rsplit("/", 1) for pair in line.split()]
        kinds = [LETTERS[tagged.kind] for tagged in tag(" ".join(word for word, _ in gold))]
        assert len(kinds) == len(gold)
        hits += sum(kind == said for kind, (_, said) in zip(kinds, gold))
        count += len(gold)
    return hits, count


@pytest.mark.parametrize(("sample", "least"), [(FIRST, 0.94), (SECOND, 0.9)])
def test_word_classes_of_tagged_samples(sample, least):
    hits, count = right(sample)
    assert hits / count >= least, f"{hits} of {count}"


def test_pairs():
    assert pairs("The left cheek is smooth, and fine bright lines cross the noses.") == (
        [("cheek", "is"), ("line", "cross")],
        [("left", "cheek"), ("fine", "line"), ("bright", "line")],
    )
    assert pairs("") == pairs("12 %!") == ([], [])


def test_words_and_sentences():
    assert words("It's 12 px wide; \u201cclear-cut\u201d edges.") == ["it's", "px", "wide", "clear-cut", "edges"]
    assert sentences(" One. Two?  Three 0.5 px! ") == ["One.", "Two?", "Three 0.5 px!"]
