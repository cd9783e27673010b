"""report.html: one page, without a network, on which a person sees what a model is worth. Knows not how it was made.

words      the answers to a buyer's questions, in sentences          drawings   curves as SVG
timelines  what was said of a clip beside the truth                  page       all of it, as one HTML file
"""
