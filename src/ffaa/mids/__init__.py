"""MIDS, the Multi-answer Intelligent Decision System: which of the three answers fits the image best.

label.py (Eq. 3), fusion.py (Eq. 4, 5), model.py (the network, Eq. 6), checkpoint.py (its weight files),
decide.py (Eq. 1), cam.py (Grad-CAM heatmaps, Fig. 7).
"""
