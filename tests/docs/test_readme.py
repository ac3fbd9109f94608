"""The README's example runs as it stands there, but for the database it names."""

from __future__ import annotations

import re
import sys
import types
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

README = Path(__file__).parents[2] / "README.md"
NAMED = 'create_engine("postgresql+psycopg:///app")'


class Base(DeclarativeBase):
    pass


class Chat(Base):
    __tablename__ = "chat"
    id: Mapped[int] = mapped_column(primary_key=True)


class Message(Base):
    __tablename__ = "message"
    id: Mapped[int] = mapped_column(primary_key=True)
    chat_id: Mapped[int] = mapped_column(ForeignKey("chat.id"))
    sent_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


def test_the_example_of_the_readme_runs(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = types.ModuleType("app.models")
    models.__dict__.update(Chat=Chat, Message=Message)
    monkeypatch.setitem(sys.modules, "app", types.ModuleType("app"))
    monkeypatch.setitem(sys.modules, "app.models", models)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Chat(id=number) for number in (7, 8, 9))
        session.flush()
        sent_at = datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)
        session.add_all(Message(chat_id=chat, sent_at=sent_at) for chat in (7, 8, 8))
        session.commit()
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert NAMED in example
    exec(compile(example.replace(NAMED, "given"), str(README), "exec"), {"given": engine})  # noqa: S102 (our own text)
    one, ordered, top = capsys.readouterr().out.splitlines()
    assert one.startswith("(7, 1, datetime")
    assert ordered == "[8, 7, 9]"
    assert top.startswith("[(8, 2, ")
