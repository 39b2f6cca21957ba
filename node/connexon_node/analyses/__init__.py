"""What this center can work out. An analysis is one module here, with its `NodeAnalysis`, and one line in `registry`;
what is asked and what is read of it is in the module of the same name in `connexon.analyses`.
"""
