"""Boosted trees as XGBoost writes them, read with care: they come from elsewhere, and its own reader trusts them.

A tree is lists of equal length, a number for each node: its children, or none where it is a leaf; what it asks of which
input; and for a leaf its value, in `split_conditions`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NoReturn

from connexon.errors import Refused

LARGEST = 3.4e38
"""Of a number in single precision."""
NO_CHILD = -1
_TOLD = ("sum_hessian", "loss_changes", "base_weights")
"""What is known of each node beside what predicts: of numbers, `sum_hessian` is how many rows came there, exactly."""
_WHOLE = ("left_children", "right_children", "parents", "split_indices", "split_type", "default_left")
_EMPTY = ("categories", "categories_nodes", "categories_segments", "categories_sizes")


class TreesRefused(Refused):
    """Trees that must not be read."""

    code = "trees.refused"


def require_sound(data: bytes, *, inputs: int, depth: int, classifies: bool) -> int:
    """How many trees they are. Raises TreesRefused where XGBoost must not read them, or they are of another model.

    Bytes without any tree are none.
    """
    if not data:
        return 0
    document = _document(data)
    try:
        learner, model = document["learner"], _model(document)
        known = learner["learner_model_param"]
        trees = model["trees"]
        right = (
            learner["objective"]["name"] == ("binary:logistic" if classifies else "reg:squarederror")
            and learner["gradient_booster"]["name"] == "gbtree"
            # Older versions write a number, newer ones a list of one.
            and float(str(known["base_score"]).strip("[]")) == (0.5 if classifies else 0.0)
            and (known["num_class"], known["num_target"], int(known["num_feature"])) == ("0", "1", inputs)
            and int(model["gbtree_model_param"]["num_trees"]) == len(trees)
            and model["gbtree_model_param"]["num_parallel_tree"] == "1"
            and model["iteration_indptr"] == list(range(len(trees) + 1))
            and model["tree_info"] == [0] * len(trees)
            and [tree["id"] for tree in trees] == list(range(len(trees)))
        )
        if not right:
            _refuse("they are of another model")
        for tree in trees:
            _require_tree(tree, inputs, depth)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise TreesRefused("The trees cannot be read: something is missing or is no number.") from error
    return len(trees)


def joined(first: bytes, more: bytes) -> bytes:
    """The trees of both, one after the other. Both are sound and of the same model; either may be without any."""
    if not first or not more:
        return first or more
    whole, added = _document(first), _document(more)
    model, trees = _model(whole), _model(added)["trees"]
    for tree in trees:
        model["trees"].append({**tree, "id": len(model["trees"])})
    number = len(model["trees"])
    model["tree_info"] = [0] * number
    model["iteration_indptr"] = list(range(number + 1))
    model["gbtree_model_param"]["num_trees"] = str(number)
    return _bytes(whole)


def bare(data: bytes) -> bytes:
    """The same trees without what does not predict: how many rows came to a node, and how much it was worth."""
    document = _document(data)
    for tree in _model(document)["trees"]:
        for name in _TOLD:
            tree[name] = [0.0] * len(tree[name])
    return _bytes(document)


def _require_tree(tree: dict[str, Any], inputs: int, depth: int) -> None:
    about = tree["tree_param"]
    size = int(about["num_nodes"])
    if not 1 <= size < 2 ** (depth + 1) or about["num_deleted"] != "0" or about["size_leaf_vector"] not in ("0", "1"):
        _refuse("a tree is too large")
    whole = [tree[name] for name in _WHOLE]
    numbers = [tree["split_conditions"], *(tree[name] for name in _TOLD)]
    if int(about["num_feature"]) != inputs or any(len(one) != size for one in (*whole, *numbers)):
        _refuse("a tree is not whole")
    if any(tree[name] for name in _EMPTY) or any(tree["split_type"]):
        _refuse("a tree asks for categories")
    if not all(type(value) is int for one in whole for value in one):
        _refuse("a tree's places are no whole numbers")
    if not all(math.isfinite(value) and abs(value) <= LARGEST for one in numbers for value in one):
        _refuse("a tree holds a number that is not finite")
    if not all(0 <= place < max(inputs, 1) for place in tree["split_indices"]):
        _refuse("a tree asks for an input that there is not")
    # Every node but the first is the child of one that comes before it: so there is no way round.
    if sorted(_children(tree, size)) != list(range(1, size)):
        _refuse("a tree's branches do not hang together")


def _children(tree: dict[str, Any], size: int) -> Iterator[int]:
    for node, (left, right) in enumerate(zip(tree["left_children"], tree["right_children"], strict=True)):
        if (left, right) == (NO_CHILD, NO_CHILD):
            continue
        if not node < min(left, right) or not max(left, right) < size:
            _refuse("a tree's branches do not hang together")
        yield from (left, right)


def _document(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TreesRefused("The trees cannot be read: they are no JSON.") from error


def _model(document: Any) -> Any:
    return document["learner"]["gradient_booster"]["model"]


def _bytes(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _refuse(what: str) -> NoReturn:
    raise TreesRefused(f"The trees cannot be read: {what}.")
