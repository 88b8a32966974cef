"""Tables of budgets (APP-8): every use within its window, and of each share how much is spent.

``budget_totals.spent`` is the sum over the uses that are still there, kept so that nobody adds up a
day's calls at each call; its row is also the lock under which a share is read and written.  ``last``: the
latest time at which it was looked at; a share's time never runs backwards.
"""

from typing import Final

import sqlalchemy as sa

from exeat.storage.schema import _BIG, _text, metadata


def _name(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String, primary_key=True)


budget_totals = sa.Table(
    "budget_totals",
    metadata,
    _name("budget"),
    _name("share"),
    sa.Column("spent", _BIG, nullable=False),
    sa.Column("last", _BIG, nullable=False),
    sa.CheckConstraint("spent >= 0", name="nothing_is_given_back_twice"),
)
budget_uses = sa.Table(
    "budget_uses",
    metadata,
    _name("budget"),
    _name("share"),
    _name("member"),
    _name("call"),
    sa.Column("amount", _BIG, nullable=False),
    sa.Column("at", _BIG, nullable=False),
    sa.Column("until", _BIG, nullable=False),
    _text("by"),
    sa.Index("budget_uses_by_time", "budget", "share", "at"),
    sa.Index("budget_uses_by_call", "call"),
)
"""``member``: digest of a value that counts once, however many rows it has; else empty."""

BUDGETS: Final = (budget_totals, budget_uses)

RESERVE: Final = """
CREATE OR REPLACE FUNCTION exeat_reserve(a_call text, a_by text, a_now bigint, a_budgets text[],
  a_shares text[], a_amounts bigint[], a_limits bigint[], a_windows bigint[], a_members text[])
RETURNS TABLE (place int, spent_now bigint, free_at bigint) LANGUAGE plpgsql AS $$
DECLARE
  v_now bigint := coalesce(a_now, (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint);
  v_at bigint; v_spent bigint; v_gone bigint; v_need bigint; v_free bigint; v_members text[];
  v_ats bigint[] := '{}'; v_spents bigint[] := '{}';
BEGIN
  FOR i IN 1 .. cardinality(a_budgets) LOOP
    INSERT INTO budget_totals AS t (budget, share, spent, last)
      VALUES (a_budgets[i], a_shares[i], 0, v_now)
      ON CONFLICT (budget, share) DO UPDATE SET last = greatest(t.last, excluded.last)
      RETURNING t.spent, t.last INTO v_spent, v_at;
    WITH gone AS (
      DELETE FROM budget_uses u WHERE u.budget = a_budgets[i] AND u.share = a_shares[i]
        AND u.at <= v_at - a_windows[i] RETURNING u.member, u.amount)
    SELECT coalesce(sum(g.amount) FILTER (WHERE g.member = ''), 0)
        + count(DISTINCT g.member) FILTER (WHERE g.member <> '' AND NOT EXISTS (
            SELECT 1 FROM budget_uses r WHERE r.budget = a_budgets[i] AND r.share = a_shares[i]
              AND r.member = g.member AND r.at > v_at - a_windows[i]))
      INTO v_gone FROM gone g;
    IF v_gone > 0 THEN
      v_spent := v_spent - v_gone;
      UPDATE budget_totals t SET spent = v_spent
        WHERE t.budget = a_budgets[i] AND t.share = a_shares[i];
    END IF;
    v_members := string_to_array(a_members[i], ',');
    v_need := a_amounts[i];
    IF cardinality(v_members) > 0 THEN
      SELECT count(*) INTO v_need FROM unnest(v_members) m WHERE NOT EXISTS (
        SELECT 1 FROM budget_uses u WHERE u.budget = a_budgets[i] AND u.share = a_shares[i]
          AND u.member = m);
    END IF;
    IF v_need > a_limits[i] - v_spent THEN
      IF v_need > a_limits[i] THEN
        v_free := NULL;
      ELSIF cardinality(v_members) > 0 THEN
        SELECT max(u.at) INTO v_free FROM budget_uses u
          WHERE u.budget = a_budgets[i] AND u.share = a_shares[i] AND u.member <> ''
            AND u.member <> ALL (v_members)
          GROUP BY u.member ORDER BY 1 OFFSET v_spent - (a_limits[i] - v_need) - 1 LIMIT 1;
      ELSE
        SELECT q.at INTO v_free FROM (
          SELECT u.at, sum(u.amount) OVER (ORDER BY u.at, u.call) AS freed FROM budget_uses u
            WHERE u.budget = a_budgets[i] AND u.share = a_shares[i] AND u.member = '') q
          WHERE q.freed >= v_spent - (a_limits[i] - v_need) ORDER BY q.freed LIMIT 1;
      END IF;
      RETURN QUERY SELECT i, v_spent, v_free + a_windows[i];
      RETURN;
    END IF;
    v_ats := v_ats || v_at;
    v_spents := v_spents || v_spent + v_need;
  END LOOP;
  FOR i IN 1 .. cardinality(a_budgets) LOOP
    v_members := string_to_array(a_members[i], ',');
    IF cardinality(v_members) > 0 THEN
      INSERT INTO budget_uses (budget, share, member, call, amount, at, until, by)
        SELECT a_budgets[i], a_shares[i], m, a_call, 1, v_ats[i], v_ats[i] + a_windows[i], a_by
          FROM unnest(v_members) m;
    ELSE
      INSERT INTO budget_uses (budget, share, member, call, amount, at, until, by) VALUES
        (a_budgets[i], a_shares[i], '', a_call, a_amounts[i], v_ats[i], v_ats[i] + a_windows[i], a_by);
    END IF;
    UPDATE budget_totals t SET spent = v_spents[i]
      WHERE t.budget = a_budgets[i] AND t.share = a_shares[i];
  END LOOP;
END $$
"""
"""One round trip on PostgreSQL: each statement of a function sees what was committed before it, so what is
read after a share's row was locked is the truth.  ``SqlBudgets`` has the same in Python, for SQLite."""
UNRESERVE: Final = """DROP FUNCTION IF EXISTS exeat_reserve(text, text, bigint, text[], text[], bigint[],
bigint[], bigint[], text[])"""
