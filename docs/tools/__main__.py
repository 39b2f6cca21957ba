"""Write the pages that are made from the code:  python -m docs.tools"""

from docs.tools import pages

pages.write()
