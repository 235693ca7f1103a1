"""nodes that are gone, so that who asks for one after a restart is told"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds a table that older code does not look at."""
    op.create_table(
        "gone_nodes",
        sa.Column("node_id", sa.String(), nullable=False),
        sa.Column("last_seen_unix_s", sa.Double(), nullable=False),
        sa.Column("record", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("node_id"),
    )


def downgrade() -> None:
    """Drops it: nothing is planned with what it holds."""
    op.drop_table("gone_nodes")
