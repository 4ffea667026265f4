"""MIDS, the Multi-answer Intelligent Decision System: which of the three answers fits the image best.

label.py (Eq. 3), fusion.py (Eq. 4, 5), model.py (the network, Eq. 6), encoder.py (its image encoder in a frozen and a
trained part), tokens.py (the text it reads), checkpoint.py (its weight files), decide.py (Eq. 1), cam.py
(heatmaps, Fig. 7). Training: train.py (settings and loop), texts.py and images.py (what is computed once), augment.py,
balance.py (lopsided classes), report.py (what was mined), encoders.py (from parts and folders), llava.py (a recipe with
a base).
"""
