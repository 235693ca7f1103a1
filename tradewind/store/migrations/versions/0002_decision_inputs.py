"""inputs of decisions, for replay"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds a table that older code does not look at."""
    op.create_table(
        "decision_inputs",
        sa.Column("decision_id", sa.String(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("answer", sa.String(), nullable=False),
        sa.Column("inputs", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("decision_id"),
        sa.UniqueConstraint("sequence"),
    )


def downgrade() -> None:
    """Drops it: decisions stay, they can no longer be replayed."""
    op.drop_table("decision_inputs")
