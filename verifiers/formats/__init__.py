"""What goes in and out: ONNX as torch modules, VNN-LIB, counterexamples and their replay."""
