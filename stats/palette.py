"""Colors and line styles that the color-blind tell apart."""

# Okabe and Ito, "Color Universal Design" (2008), without black, and without yellow, which is faint
# on white.
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
STYLES = ("-", (0, (1, 1.2)), (0, (4, 1.5)), (0, (4, 1.5, 1, 1.5)))
