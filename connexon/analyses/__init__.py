"""What the network can be asked. An analysis is one module here, with its value and its `AnalysisSpec`, and one line in
`registry`; at a node it is one module of `connexon_node.analyses`, with its `NodeAnalysis`.
"""
