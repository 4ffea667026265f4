import pytest

from ffaa.eval.likeness import Embedded, likeness, rouge_l


def test_rouge_by_hand():
    # the longest common subsequence of 'police killed the gunman' (Lin 2004): 'police the gunman'
    assert rouge_l("police kill the gunman", "police killed the gunman") == pytest.approx(3 / 4)
    assert rouge_l("the gunman kill police", "police killed the gunman") == pytest.approx(2 / 4)
    assert rouge_l("A b. C!", "a B c") == 1
    assert rouge_l("x", "y") == rouge_l("", "") == rouge_l("", "y") == 0
    assert rouge_l("a b", "a b c d") == pytest.approx(2 * 2 / 6)


def test_likeness_takes_the_most_alike_and_compares_people():
    found = likeness("a b c", ["a b x", "a b c"], ["q r", "a"], rouge_l)
    assert found.found == 1
    assert found.control == pytest.approx(0.5)
    assert found.people == pytest.approx(2 / 3)
    assert likeness("a", ["a"], ["b"], rouge_l).people is None


def test_embeddings(use_tiny_parts):
    alike = Embedded()
    assert alike("The nose is bent.", "The nose is bent.") == pytest.approx(1)
    one = alike("The nose is bent.", "Completely other words here")
    assert -1 <= one < 0.999
    assert one == pytest.approx(alike("Completely other words here", "The nose is bent."))
    assert "minilm-l6" in alike.about
