"""Drawing: charts as SVG, image sheets as PNG. It gets plain records and knows no results."""
