"""Builds the dashboard `dashboard.json`, with Grafana's own SDK: `make dashboard`.

One dashboard of three rows: all nodes, the paths of the chosen node, its watchdog. Series are selected by `instance` and `peer` alone, so that it shows
what Grafana Alloy collects as well as what node_exporter does.
"""

from __future__ import annotations

import json
import sys
from typing import TypeVar

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import BigValueColorMode, VisibilityMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

Panel = stat.Panel | statetimeline.Panel | table.Panel | timeseries.Panel
AnyPanel = TypeVar("AnyPanel", stat.Panel, statetimeline.Panel, table.Panel, timeseries.Panel)

COLOURS = {
    "direct": "#009e73",
    "peer_relay": "#e69f00",
    "derp": "#d55e00",
    "idle": "#56b4e9",
    "offline": "#9aa0a8",
}
"Of Okabe and Ito, which the colour-blind can tell apart; those of `tsfc replay --report`."
GOOD, BAD = COLOURS["direct"], COLOURS["derp"]
CODES = {path: code for code, path in enumerate(COLOURS, 1)}
SOURCE = models.DataSourceRef(type_val="prometheus", uid="$datasource")
LETTERS = "ABCDEFGHI"
"What Grafana calls the queries of a panel, and in a table their columns."
PEER = '{instance="$instance",peer=~"$peer"}'
NODE = '{instance="$instance"}'


def query(expression: str, legend: str = "") -> prometheus.Dataquery:
    """Returns a query over time."""
    return prometheus.Dataquery().expr(expression).legend_format(legend).range()


def latest(expression: str) -> prometheus.Dataquery:
    """Returns a query of the last values, as rows of a table."""
    return prometheus.Dataquery().expr(expression).instant().format(PromQueryFormat.TABLE)


def described(panel: AnyPanel, title: str, text: str, *, width: int, height: int = 8) -> AnyPanel:
    """Returns the panel with what all of them have."""
    panel.title(title).description(text).datasource(SOURCE).span(width).height(height)
    return panel


def limits(*steps: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    """Returns colours from values on, the first of which has no value."""
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=colour) for value, colour in steps])
    )


def graph(
    title: str, text: str, *queries: prometheus.Dataquery, unit: str | None = None
) -> timeseries.Panel:
    """Returns lines over time, half as wide as the dashboard; a gap is where nothing is known."""
    panel = (
        described(timeseries.Panel(), title, text, width=12)
        .legend(common.VizLegendOptions().show_legend(show_legend=True))
        .span_nulls(span_nulls=False)
    )
    if unit is not None:
        panel.unit(unit)
    return panel.targets(list(queries))


def painted(panel: timeseries.Panel) -> timeseries.Panel:
    """Returns the panel, its series named after paths in the colours of those."""
    for path, colour in COLOURS.items():
        panel.override_by_regexp(
            f"^{path}.*",
            [
                models.DynamicConfigValue(
                    id_val="color", value={"mode": "fixed", "fixedColor": colour}
                )
            ],
        )
    return panel


def count(title: str, text: str, expression: str, *, bad: float | None) -> stat.Panel:
    """Returns one number about all nodes, red from `bad` on."""
    panel = described(stat.Panel(), title, text, width=4, height=4)
    panel.with_target(query(f"({expression}) or vector(0)")).color_mode(BigValueColorMode.VALUE)
    return panel.thresholds(
        limits((None, GOOD)) if bad is None else limits((None, GOOD), (bad, BAD))
    )


def overview() -> list[Panel]:
    """Returns the panels about all nodes."""
    nodes = table.Panel()
    columns = {
        "up": "max by (instance) (tailscale_up)",
        "direct": 'sum by (instance) (tailscale_peer_path{path="direct"})',
        "peer relay": 'sum by (instance) (tailscale_peer_path{path="peer_relay"})',
        "relay": 'sum by (instance) (tailscale_peer_path{path="derp"})',
        "idle": 'sum by (instance) (tailscale_peer_path{path="idle"})',
        "offline": 'sum by (instance) (tailscale_peer_path{path="offline"})',
        "restarts in 24 h": "max by (instance) (increase(tailscale_watchdog_restarts_total[1d]))",
        "health messages": "max by (instance) (tailscale_health_issues)",
        "key expires": "max by (instance) (tailscale_key_expiry_timestamp_seconds) * 1000",
    }
    for expression in columns.values():
        nodes.with_target(latest(expression))
    nodes.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    names = {f"Value #{letter}": name for letter, name in zip(LETTERS, columns, strict=True)}
    nodes.with_transformation(
        models.DataTransformerConfig(
            id_val="organize",
            options={"excludeByName": {"Time": True}, "renameByName": names | {"instance": "node"}},
        )
    )
    nodes.decimals(0).override_by_name(
        "key expires", [models.DynamicConfigValue(id_val="unit", value="dateTimeFromNow")]
    )
    nodes.override_by_name(
        "node",
        [
            models.DynamicConfigValue(
                id_val="links",
                value=[
                    {
                        "title": "Show this node",
                        "url": "?var-instance=${__value.raw}&${datasource:queryparam}",
                    }
                ],
            )
        ],
    )
    return [
        count("Nodes", "Nodes whose exporter is collected.", "count(tailscale_up)", bad=None),
        count(
            "Down",
            "Nodes whose tailscaled does not answer or is not Running.",
            "count(tailscale_up == 0)",
            bad=1,
        ),
        count(
            "Peers on relay",
            "Paths from all nodes to their peers that lead through DERP or a peer relay now. Idle peers are not among them.",
            'sum(tailscale_peer_path{path=~"derp|peer_relay"})',
            bad=1,
        ),
        count(
            "Restarts in 24 h",
            "Times that watchdogs restarted tailscaled, of all nodes.",
            "round(sum(increase(tailscale_watchdog_restarts_total[1d])))",
            bad=6,
        ),
        count(
            "Health messages",
            "What tailscaled complains about, of all nodes; `tailscale status` prints it.",
            "sum(tailscale_health_issues)",
            bad=1,
        ),
        count(
            "Alerts",
            "Alerts of this mixin that fire.",
            'count(ALERTS{alertname=~"Tailscale.*",alertstate="firing"})',
            bad=1,
        ),
        described(
            nodes,
            "Nodes",
            "Each node with the paths of its peers, counted. A click on a node shows it below.",
            width=24,
        ),
    ]


def one_node() -> list[Panel]:
    """Returns the panels about the paths of the chosen node."""
    coded = " or ".join(
        f'{code} * tailscale_peer_path{{instance="$instance",peer=~"$peer",path="{path}"}}'
        for path, code in CODES.items()
    )
    timeline = statetimeline.Panel().with_target(query(f"sum without (path) ({coded})", "{{peer}}"))
    words = {
        str(code): models.ValueMappingResult(
            text=path.replace("_", " "), color=COLOURS[path], index=code - 1
        )
        for path, code in CODES.items()
    }
    timeline.mappings([models.ValueMap(options=words)])
    timeline.merge_values(merge_values=True).show_value(VisibilityMode.NEVER).row_height(0.8)

    return [
        described(
            timeline,
            "Path of each peer",
            "How packets travel to each peer. A peer that nothing was sent to for 45 seconds is idle, which is not on relay. The lines are restarts.",
            width=24,
            height=10,
        ),
        graph(
            "Share of time direct",
            "Over an hour, of the time that the peer was in use.",
            query(
                f"avg_over_time(tailscale_peer_direct{PEER}[1h]) / avg_over_time(tailscale_peer_active{PEER}[1h])",
                "{{peer}}",
            ),
            unit="percentunit",
        )
        .min(0)
        .max(1),
        graph(
            "Latency",
            "Round trip of the last ping of keepalive, and the path that it took. Empty unless keepalive has a metricsPath.",
            query(f"tailscale_keepalive_peer_latency_seconds{PEER}", "{{peer}} {{path}}"),
            unit="s",
        ),
        painted(
            graph(
                "Throughput by path",
                "tailscaled's own count, of all peers together: of native-metrics.",
                query(
                    f"sum by (path) (rate(tailscaled_outbound_bytes_total{NODE}[$__rate_interval]))",
                    "{{path}} sent",
                ),
                query(
                    f"sum by (path) (rate(tailscaled_inbound_bytes_total{NODE}[$__rate_interval]))",
                    "{{path}} received",
                ),
                unit="Bps",
            )
        ),
        graph(
            "Throughput by peer",
            "WireGuard bytes.",
            query(f"rate(tailscale_peer_tx_bytes_total{PEER}[$__rate_interval])", "{{peer}} sent"),
            query(
                f"rate(tailscale_peer_rx_bytes_total{PEER}[$__rate_interval])", "{{peer}} received"
            ),
            unit="Bps",
        ),
        graph(
            "Last handshake",
            "How long ago. Of a peer in use it stays below three minutes or so; a line that rises while something is sent is a peer that does not answer.",
            query(f"tailscale_peer_last_handshake_seconds_ago{PEER}", "{{peer}}"),
            unit="s",
        ),
        painted(
            graph(
                "Answers to keepalive",
                "Peers of the last round by what came of it.",
                query(f"tailscale_keepalive_peers{NODE}", "{{result}}"),
            )
        ),
    ]


def watchdog() -> list[Panel]:
    """Returns the panels about the watchdog of the chosen node."""
    cooldown = f"clamp_min(tailscale_watchdog_last_restart_timestamp_seconds{NODE} + tailscale_watchdog_cooldown_seconds{NODE} - time(), 0)"
    left = (
        stat.Panel()
        .with_target(query(cooldown))
        .unit("s")
        .color_mode(BigValueColorMode.NONE)
        .no_value("no restart yet")
    )
    age = (
        stat.Panel()
        .with_target(query(f"time() - tailscale_watchdog_last_success_timestamp_seconds{NODE}"))
        .unit("s")
        .color_mode(BigValueColorMode.VALUE)
    )
    age.thresholds(limits((None, GOOD), (600, BAD)))
    counters = ("restarts", "restart_failures", "relay_detections", "recoveries")
    jobs = ("exporter", "native_metrics", "keepalive", "watchdog")
    return [
        graph(
            "On relay for",
            "Per peer, and the policy's limit, above which tailscaled is restarted unless in cooldown or the peer is excluded.",
            query(f"tailscale_watchdog_peer_relay_duration_seconds{PEER}", "{{peer}}"),
            query(f"tailscale_watchdog_max_relay_seconds{NODE}", "restart above this"),
            unit="s",
        ),
        graph(
            "Verdicts",
            "Peers by what the watchdog made of them in its last run.",
            query(f"tailscale_watchdog_peers{NODE} > 0", "{{reason}}"),
        ),
        described(left, "Cooldown left", "Until then there is no other restart.", width=6),
        described(
            age,
            "Last saw tailscaled",
            "How long ago. A watchdog that runs and sees nothing does nothing.",
            width=6,
        ),
        graph(
            "Per hour",
            "Restarts, failed ones, peers detected on relay and peers that recovered by themselves.",
            *(
                query(
                    f"increase(tailscale_watchdog_{name}_total{NODE}[1h])", name.replace("_", " ")
                )
                for name in counters
            ),
        ),
        graph(
            "Duration of the jobs",
            "Of their last runs. A keepalive waits 15 seconds for a peer that does not answer.",
            *(
                query(f"tailscale_{job}_duration_seconds{NODE}", job.replace("_", "-"))
                for job in jobs
            ),
            unit="s",
        ),
        graph(
            "Age of the files",
            "A file that grows old is one that its job no longer writes.",
            query(
                'time() - node_textfile_mtime_seconds{instance="$instance",file=~".*/tailscale-.*"}',
                "{{file}}",
            ),
            unit="s",
        ),
    ]


def built() -> dashboard.Dashboard:
    """Returns the dashboard."""
    instance = (
        dashboard.QueryVariable("instance")
        .label("Node")
        .query("label_values(tailscale_up, instance)")
    )
    peer = (
        dashboard.QueryVariable("peer")
        .label("Peer")
        .query('label_values(tailscale_peer_online{instance="$instance"}, peer)')
        .multi(multi=True)
        .include_all(include_all=True)
    )
    for variable in (instance, peer):
        variable.datasource(SOURCE).refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(
            models.VariableSort.ALPHABETICAL_ASC
        )
    peer.current(models.VariableOption(text="All", value="$__all"))
    restarts = (
        dashboard.AnnotationQuery()
        .name("Restarts of tailscaled")
        .datasource(SOURCE)
        .enable(enable=True)
        .icon_color(BAD)
    )
    board = (
        dashboard.Dashboard("Tailscale paths")
        .uid("tsfc-paths")
        .tags(["tailscale"])
        .time("now-6h", "now")
        .refresh("1m")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
    )
    board.description(
        "Which peers of which nodes are direct and which on relay, and what the watchdogs did about it. From tsfc's metrics."
    )
    board.with_variable(
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    ).with_variable(instance).with_variable(peer)
    board.annotation(restarts.expr(f"increase(tailscale_watchdog_restarts_total{NODE}[2m]) > 0"))
    for title, panels in {
        "All nodes": overview(),
        "Paths of $instance": one_node(),
        "Watchdog of $instance": watchdog(),
    }.items():
        board.with_row(dashboard.Row(title))
        for panel in panels:
            board.with_panel(panel)
    return board


def main() -> None:
    """Prints the dashboard as JSON, its panels and their queries numbered, which the SDK leaves to Grafana."""
    document = json.loads(JSONEncoder().encode(built().build()))
    for number, panel in enumerate(document["panels"], 1):
        panel["id"] = number
        for letter, target in zip(LETTERS, panel.get("targets", []), strict=False):
            target["refId"] = letter
    sys.stdout.write(json.dumps(document, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
