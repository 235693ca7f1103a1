"""searches for recipes, and which recipes did well"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_NOW = sa.text("now()")


def upgrade() -> None:
    """Adds two tables that older code does not look at."""
    op.create_table(
        "searches",
        sa.Column("search_id", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("cache_key", sa.String(), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.PrimaryKeyConstraint("search_id"),
    )
    op.create_index("ix_searches_model_id", "searches", ["model_id"])
    op.create_index("ix_searches_cache_key", "searches", ["cache_key"])
    op.create_table(
        "known_recipes",
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("shape_class", sa.String(), nullable=False),
        sa.Column("recipe", sa.String(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=_NOW, nullable=False),
        sa.PrimaryKeyConstraint("target", "shape_class", "recipe"),
    )


def downgrade() -> None:
    """Drops both: variants stay, the next search starts from nothing."""
    op.drop_table("known_recipes")
    op.drop_index("ix_searches_cache_key", "searches")
    op.drop_index("ix_searches_model_id", "searches")
    op.drop_table("searches")
