"""Tables of the metadata database. Each table has one writer, named in its docstring.

Documents that are read whole and never searched inside are kept as protobuf bytes of the message of the contract, so
that the schema of the API and of the store cannot drift apart; what is searched or constrained is a column.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """All tables."""


def _created() -> Mapped[datetime]:
    return mapped_column(DateTime(timezone=True), server_default=func.now(), nullable=False)


class ModelRow(Base):
    """A model as imported. Writer: compiler."""

    __tablename__ = "models"

    model_id: Mapped[str] = mapped_column(String, primary_key=True)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    record: Mapped[bytes] = mapped_column(LargeBinary)  # tradewind.v1.Model
    created_at: Mapped[datetime] = _created()


class VariantRow(Base):
    """A variant as built. Writer: compiler."""

    __tablename__ = "variants"

    variant_id: Mapped[str] = mapped_column(String, primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.model_id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String)
    state: Mapped[int] = mapped_column()  # tradewind.v1.VariantState
    cache_key: Mapped[str] = mapped_column(String, index=True)  # digest of everything that went into the build
    record: Mapped[bytes] = mapped_column(LargeBinary)  # tradewind.v1.Variant
    created_at: Mapped[datetime] = _created()


class SearchRow(Base):
    """A search for recipes, with every candidate. Writer: compiler."""

    __tablename__ = "searches"

    search_id: Mapped[str] = mapped_column(String, primary_key=True)
    model_id: Mapped[str] = mapped_column(String, index=True)
    cache_key: Mapped[str] = mapped_column(String, index=True)  # digest of everything that the answer depends on
    record: Mapped[bytes] = mapped_column(LargeBinary)  # tradewind.v1.Search
    created_at: Mapped[datetime] = _created()


class KnownRecipeRow(Base):
    """How well a recipe did on a target for models of a shape class. Writer: compiler."""

    __tablename__ = "known_recipes"

    target: Mapped[str] = mapped_column(String, primary_key=True)  # compiled for, so that two hosts do not mix
    shape_class: Mapped[str] = mapped_column(String, primary_key=True)
    recipe: Mapped[str] = mapped_column(String, primary_key=True)
    place: Mapped[int] = mapped_column()  # 0 for the best of the last search
    updated_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), onupdate=func.now()
    )


class ProfileRow(Base):
    """What an operating point costs. Writer: profiler."""

    __tablename__ = "profiles"
    __table_args__ = (Index("profiles_point", "variant_id", "device_class", "partition_kind"),)

    profile_id: Mapped[str] = mapped_column(String, primary_key=True)
    model_id: Mapped[str] = mapped_column(String, index=True)
    variant_id: Mapped[str] = mapped_column(String)
    device_class: Mapped[str] = mapped_column(String)
    partition_kind: Mapped[str] = mapped_column(String)
    record: Mapped[bytes] = mapped_column(LargeBinary)  # tradewind.v1.Profile
    created_at: Mapped[datetime] = _created()


class DeploymentRow(Base):
    """A user's wish. Writer: orchestrator."""

    __tablename__ = "deployments"

    deployment_id: Mapped[str] = mapped_column(String, primary_key=True)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    generation: Mapped[int] = mapped_column(BigInteger)
    deleting: Mapped[bool] = mapped_column(server_default=text("false"), default=False)
    spec: Mapped[bytes] = mapped_column(LargeBinary)  # tradewind.v1.DeploymentSpec
    created_at: Mapped[datetime] = _created()
    updated_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), onupdate=func.now()
    )


class BlueprintRow(Base):
    """An intended state of the cluster; the one with the highest generation is in force. Writer: orchestrator.

    Commit is compare-and-set: `generation` is the parent's plus one and unique; of two writers on one parent one fails.
    """

    __tablename__ = "blueprints"
    __table_args__ = (UniqueConstraint("parent_id", name="blueprints_one_child"),)

    blueprint_id: Mapped[str] = mapped_column(String, primary_key=True)
    generation: Mapped[int] = mapped_column(BigInteger, unique=True)
    parent_id: Mapped[str] = mapped_column(String)  # "" for the first
    record: Mapped[bytes] = mapped_column(LargeBinary)  # tradewind.v1.Blueprint
    created_at: Mapped[datetime] = _created()


class DecisionRow(Base):
    """The decision journal. Writer: orchestrator."""

    __tablename__ = "decisions"

    decision_id: Mapped[str] = mapped_column(String, primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, unique=True)
    deployment_ids: Mapped[str] = mapped_column(String)  # ",id,id," for LIKE
    record: Mapped[bytes] = mapped_column(LargeBinary)  # tradewind.v1.Decision
    created_at: Mapped[datetime] = _created()


class DecisionInputsRow(Base):
    """What a decision was made from, of the newest decisions only. Writer: orchestrator."""

    __tablename__ = "decision_inputs"

    decision_id: Mapped[str] = mapped_column(String, primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, unique=True)
    kind: Mapped[str] = mapped_column(String)
    answer: Mapped[str] = mapped_column(String)  # digest of what was decided
    inputs: Mapped[bytes] = mapped_column(LargeBinary)  # zlib of core.memo's text


class NodePolicyRow(Base):
    """What people decided about a node. Writer: orchestrator."""

    __tablename__ = "node_policies"

    node_id: Mapped[str] = mapped_column(String, primary_key=True)
    draining: Mapped[bool] = mapped_column(default=False)


class GoneNodeRow(Base):
    """A node that is gone, as shown for a day. Writer: orchestrator."""

    __tablename__ = "gone_nodes"

    node_id: Mapped[str] = mapped_column(String, primary_key=True)
    last_seen_unix_s: Mapped[float] = mapped_column(Double)
    record: Mapped[bytes] = mapped_column(LargeBinary)  # tradewind.v1.NodeReport, id, labels and place in the sequence


class PowerBudgetRow(Base):
    """Limits of power. Writer: orchestrator."""

    __tablename__ = "power_budgets"

    scope: Mapped[str] = mapped_column(String, primary_key=True)
    limit_mw: Mapped[int] = mapped_column(BigInteger)


class LeaderRow(Base):
    """The one leader of the orchestrators: its fencing number grows at each take-over. Writer: orchestrator."""

    __tablename__ = "leader"

    role: Mapped[str] = mapped_column(String, primary_key=True)
    holder: Mapped[str] = mapped_column(String)
    fencing: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class OperationRow(Base):
    """Long work. Writer: the service that runs it."""

    __tablename__ = "operations"
    __table_args__ = (UniqueConstraint("service", "request_id", name="operations_request"),)

    operation_id: Mapped[str] = mapped_column(String, primary_key=True)
    service: Mapped[str] = mapped_column(String, index=True)
    request_id: Mapped[str] = mapped_column(String)
    content_digest: Mapped[str] = mapped_column(String)
    final: Mapped[bool] = mapped_column(default=False, index=True)
    record: Mapped[bytes] = mapped_column(LargeBinary)  # tradewind.v1.Operation
    created_at: Mapped[datetime] = _created()


class RequestRow(Base):
    """Answers given to writes, by request_id, so that a repeat gets the same answer. Writer: each service its own."""

    __tablename__ = "requests"

    service: Mapped[str] = mapped_column(String, primary_key=True)
    request_id: Mapped[str] = mapped_column(String, primary_key=True)
    method: Mapped[str] = mapped_column(String)
    content_digest: Mapped[str] = mapped_column(String)
    response: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = _created()
