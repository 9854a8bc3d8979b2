"""Values that are made quickly: in nothing else different from those of attrs."""

import copy
import pickle

import attrs
import pytest
from attrs import frozen
from support.make import T0, kline, trade

from trio_feed.model import Kline, Trade
from trio_feed.model.quick import maker, quick


def plainly(cls: type) -> type:
    """The class as attrs alone makes it."""
    names = [(a.name, attrs.field(default=a.default, type=a.type)) for a in attrs.fields(cls)]
    return attrs.make_class(cls.__name__, dict(names), frozen=True)


@pytest.mark.parametrize("value", [trade(1, T0), kline(T0)])
def test_it_is_as_attrs_makes_it(value: Trade | Kline) -> None:
    cls, fields = type(value), attrs.asdict(value, recurse=False)
    assert repr(value) == repr(plainly(cls)(**fields))
    same = cls(*fields.values())
    assert same == value == cls(**fields)
    assert maker(cls)(**fields) == maker(cls)(*fields.values()) == value
    assert type(maker(cls)(**fields)) is cls
    assert hash(same) == hash(value)
    assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == value
    assert attrs.evolve(value, event_ms=1) != value
    assert type(value) is cls
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        value.event_ms = 1  # type: ignore[misc]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        del value.event_ms


def test_what_has_no_default_is_wanted() -> None:
    with pytest.raises(TypeError, match="symbol"):
        Trade()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="symbol"):
        maker(Trade)()  # type: ignore[call-arg]
    assert trade(1, T0).quote_quantity is None


def test_another_layout_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match="layout"):

        @quick
        @frozen
        class Weak:
            number: int
