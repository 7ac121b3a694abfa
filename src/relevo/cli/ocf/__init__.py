"""Resource agents for a cluster that Pacemaker runs: `ocf:relevo:mirror` (promotable) and `ocf:relevo:files`.

`relevo ocf install` writes what Pacemaker looks for; that runs `relevo ocf mirror|files ACTION`. `codes`
says what an agent answers, `commands` turns what happened into that, `mirror` and `files` act, `pacemaker` asks the
cluster.
Nothing in here decides who is promoted: Pacemaker does, by the scores that the mirror's agent gives.
"""

from relevo.cli.ocf.commands import app

__all__ = ["app"]
