"""Build `dashboard.json` with Grafana's SDK: `make dashboard`.

The dashboard has four rows: all nodes, the paths of the selected node, its watchdog,
and what only the guarded policy of the watchdog exports.
Each query has the variables `cluster` and `job`, which are put in like the selector of
`tsfc mixin`. By default they are all clusters, and the jobs that scrape tsfc.
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

from tsfc.mixin import selector

Panel = stat.Panel | statetimeline.Panel | table.Panel | timeseries.Panel
AnyPanel = TypeVar("AnyPanel", stat.Panel, statetimeline.Panel, table.Panel, timeseries.Panel)

COLORS = {
    "direct": "#009e73",
    "peer_relay": "#e69f00",
    "derp": "#d55e00",
    "idle": "#56b4e9",
    "offline": "#9aa0a8",
    "none": "#8c1d18",
}
"Color of each path: Okabe and Ito's palette for color-blind readers, as in `--report`."
GOOD, BAD = COLORS["direct"], COLORS["derp"]
CAUSES = {
    "control_outage": "#8c1d18",
    "relay_outage": "#d55e00",
    "udp_blocked": "#e69f00",
    "hard_nat": "#cc79a7",
    "far_side": "#56b4e9",
    "unknown": "#9aa0a8",
}
"Color of each likely cause of a relay."
SOURCE = models.DataSourceRef(type_val="prometheus", uid="$datasource")
PANEL = "panel:"
"Address of a panel by its title, until the panels have numbers."
LETTERS = "ABCDEFGHI"
"Names of the queries of a panel; a table names its columns after them."
VARIABLES = selector.parse('cluster=~"$cluster",job=~"$job"').unwrap()
OF_TSFC = "tailscale_exporter_duration_seconds"
"Metric that no other exporter has, for the values of `cluster` and `job`."
EXCLUDED = "tailscale_watchdog_peer_excluded"
PEER = '{instance="$instance",peer=~"$peer"}'
NODE = '{instance="$instance"}'
FIRING = 'ALERTS{alertname=~"Tailscale.*",alertstate="firing"}'
ALERT_COLUMNS = {"alertname": "alert", "severity": "severity", "instance": "node", "peer": "peer"}
"Labels of alerts that are shown, each with the name of its column."


def selected(expression: str) -> str:
    """Query of the selected clusters and jobs."""
    return selector.select(expression, VARIABLES)


def query(expression: str, legend: str = "") -> prometheus.Dataquery:
    """Query over a time range."""
    return prometheus.Dataquery().expr(selected(expression)).legend_format(legend).range()


def latest(expression: str) -> prometheus.Dataquery:
    """Query of the latest values, as rows of a table."""
    return prometheus.Dataquery().expr(selected(expression)).instant().format(PromQueryFormat.TABLE)


def styled(panel: AnyPanel, title: str, text: str, *, width: int, height: int = 8) -> AnyPanel:
    """Set the options that all panels have."""
    panel.title(title).description(text).datasource(SOURCE).span(width).height(height)
    return panel


def thresholds(*steps: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    """Color from each value on. The first step has no value: it is the base color."""
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=color) for value, color in steps])
    )


def graph(
    title: str, text: str, *queries: prometheus.Dataquery, unit: str | None = None
) -> timeseries.Panel:
    """Lines over time, half as wide as the dashboard. Missing samples leave a gap.

    Without a unit, the values are counts.
    """
    panel = (
        styled(timeseries.Panel(), title, text, width=12)
        .legend(common.VizLegendOptions().show_legend(show_legend=True))
        .span_nulls(span_nulls=False)
    )
    if unit is None:
        panel.unit("short").decimals(0).min(0)
    else:
        panel.unit(unit)
    return panel.targets(list(queries))


def fixed_color(color: str) -> models.DynamicConfigValue:
    """Color of a series."""
    return models.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})


def color_by_path(panel: timeseries.Panel) -> timeseries.Panel:
    """Give each series whose name begins with a path the color of that path."""
    for path, color in COLORS.items():
        panel.override_by_regexp(
            f"^{path}.*",
            [fixed_color(color)],
        )
    return panel


def count(title: str, text: str, expression: str, *, bad: float | None, details: str) -> stat.Panel:
    """One number about all nodes, red from `bad` on, or without a color.

    A click shows the panel with the title `details`.
    """
    panel = styled(stat.Panel(), title, text, width=4, height=4)
    panel.with_target(query(f"({expression}) or vector(0)")).unit("short").decimals(0)
    panel.data_links(
        [
            dashboard.DashboardLink(f"Show {details}")
            .type(models.DashboardLinkType.LINK)
            .url(PANEL + details)
        ]
    )
    if bad is None:
        return panel.color_mode(BigValueColorMode.NONE)
    return panel.color_mode(BigValueColorMode.VALUE).thresholds(
        thresholds((None, GOOD), (bad, BAD))
    )


def timeline(metric: str, label: str, colors: dict[str, str]) -> statetimeline.Panel:
    """One lane per peer: the value of a label whose series is 1, in its color."""
    codes = list(enumerate(colors, 1))
    coded = " or ".join(
        f'{code} * {metric}{{instance="$instance",peer=~"$peer",{label}="{value}"}}'
        for code, value in codes
    )
    panel = statetimeline.Panel()
    panel.with_target(query(f"sum without ({label}) ({coded})", "{{peer}}"))
    words = {
        str(code): models.ValueMappingResult(
            text=value.replace("_", " "), color=colors[value], index=code - 1
        )
        for code, value in codes
    }
    panel.mappings([models.ValueMap(options=words)])
    return panel.merge_values(merge_values=True).show_value(VisibilityMode.NEVER).row_height(0.8)


def overview() -> list[Panel]:
    """Panels about all nodes."""
    nodes = table.Panel()
    columns = {
        "up": "max by (instance) (tailscale_up)",
        "direct": 'sum by (instance) (tailscale_peer_path{path="direct"})',
        "peer relay": 'sum by (instance) (tailscale_peer_path{path="peer_relay"})',
        "relay": 'sum by (instance) (tailscale_peer_path{path="derp"})',
        "idle": 'sum by (instance) (tailscale_peer_path{path="idle"})',
        "offline": 'sum by (instance) (tailscale_peer_path{path="offline"})',
        "restarts in 24 h": (
            "max by (instance) (round(increase(tailscale_watchdog_restarts_total[1d])))"
        ),
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
    alerts = table.Panel().with_target(latest(FIRING)).no_value("none")
    alerts.with_transformation(
        models.DataTransformerConfig(
            id_val="organize",
            options={
                "includeByName": dict.fromkeys(ALERT_COLUMNS, True),
                "indexByName": {name: at for at, name in enumerate(ALERT_COLUMNS)},
                "renameByName": ALERT_COLUMNS,
            },
        )
    )
    nodes.unit("short").decimals(0).override_by_name(
        "up",
        [
            models.DynamicConfigValue(
                id_val="mappings",
                value=[
                    {
                        "type": "value",
                        "options": {
                            "0": {"text": "down", "color": BAD, "index": 0},
                            "1": {"text": "up", "color": GOOD, "index": 1},
                        },
                    }
                ],
            ),
            models.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}),
        ],
    )
    nodes.override_by_name(
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
        count(
            "Nodes",
            "Number of nodes that export metrics.",
            "count(tailscale_up)",
            bad=None,
            details="Each node",
        ),
        count(
            "Down",
            "Number of nodes whose tailscaled is unreachable or not Running.",
            "count(tailscale_up == 0)",
            bad=1,
            details="Each node",
        ),
        count(
            "Peers on relay",
            "Number of paths through DERP or a peer relay, of all nodes. Idle peers do not count, "
            "and neither do peers that the watchdog excludes.",
            'sum(tailscale_peer_path{path=~"derp|peer_relay"}'
            f" unless ignoring (path) {EXCLUDED} == 1)",
            bad=1,
            details="Path of each peer",
        ),
        count(
            "Restarts in 24 h",
            "Number of restarts of tailscaled by the watchdogs of all nodes.",
            "round(sum(increase(tailscale_watchdog_restarts_total[1d])))",
            bad=None,
            details="Events per hour",
        ),
        count(
            "Health messages",
            "Number of health messages of all nodes that `--accept-health` does not accept. "
            "`tailscale status` prints them.",
            "sum(tailscale_health_issues)",
            bad=1,
            details="Each node",
        ),
        count(
            "Alerts",
            "Number of firing alerts of this mixin.",
            f"count({FIRING})",
            bad=1,
            details="Firing alerts",
        ),
        styled(
            nodes,
            "Each node",
            "Each node with the number of peers on each path. Click a node to show it below.",
            width=16,
        ),
        styled(
            alerts,
            "Firing alerts",
            "Firing alerts of this mixin, even if an Alertmanager silences them.",
            width=8,
        ),
    ]


def one_node() -> list[Panel]:
    """Panels about the paths of the selected node."""
    return [
        styled(
            timeline("tailscale_peer_path", "path", COLORS),
            "Path of each peer",
            "How packets travel to each peer. A peer is idle, not on relay, if nothing was sent to "
            "it for 45 seconds. Vertical lines are restarts of tailscaled.",
            width=24,
            height=10,
        ),
        graph(
            "Share of time direct",
            "Share of the time in use that the peer was direct, over one hour.",
            query(
                f"avg_over_time(tailscale_peer_direct{PEER}[1h])"
                f" / avg_over_time(tailscale_peer_active{PEER}[1h])",
                "{{peer}}",
            ),
            unit="percentunit",
        )
        .min(0)
        .max(1),
        graph(
            "Latency",
            "Round-trip time of the last keepalive ping, by path. Empty unless keepalive has a "
            "metricsPath.",
            query(f"tailscale_keepalive_peer_latency_seconds{PEER}", "{{peer}} {{path}}"),
            unit="s",
        ),
        color_by_path(
            graph(
                "Throughput by path",
                "Bytes per second of all peers, by path. tailscaled counts them (native-metrics).",
                *(
                    query(
                        f"sum by (path) (rate(tailscaled_{way}_bytes_total{NODE}"
                        "[$__rate_interval]))",
                        f"{{{{path}}}} {legend}",
                    )
                    for way, legend in (("outbound", "sent"), ("inbound", "received"))
                ),
                unit="Bps",
            )
        ),
        graph(
            "Throughput by peer",
            "WireGuard bytes per second.",
            query(f"rate(tailscale_peer_tx_bytes_total{PEER}[$__rate_interval])", "{{peer}} sent"),
            query(
                f"rate(tailscale_peer_rx_bytes_total{PEER}[$__rate_interval])", "{{peer}} received"
            ),
            unit="Bps",
        ),
        graph(
            "Last handshake",
            "Time since the last WireGuard handshake. It stays below about three minutes for a "
            "peer in use. If it rises while this node sends, the peer does not answer.",
            query(f"tailscale_peer_last_handshake_seconds_ago{PEER}", "{{peer}}"),
            unit="s",
        ),
        color_by_path(
            graph(
                "Keepalive results",
                "Number of peers in the last round, by result.",
                query(f"tailscale_keepalive_peers{NODE}", "{{result}}"),
            )
        ),
    ]


def watchdog() -> list[Panel]:
    """Panels about the watchdog of the selected node."""
    cooldown = (
        f"clamp_min(tailscale_watchdog_last_restart_timestamp_seconds{NODE}"
        f" + tailscale_watchdog_cooldown_seconds{NODE} - time(), 0)"
    )
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
    age.thresholds(thresholds((None, GOOD), (600, BAD)))
    duration = f"tailscale_watchdog_peer_relay_duration_seconds{PEER}"
    counters = ("restarts", "restart_failures", "relay_detections", "recoveries")
    jobs = ("exporter", "native_metrics", "keepalive", "watchdog")
    return [
        graph(
            "Time on relay",
            "Time on relay of each peer, and the threshold. Above it the watchdog restarts "
            "tailscaled, except during a cooldown or for an excluded peer, which is gray.",
            query(f"{duration} unless {EXCLUDED}{PEER} == 1", "{{peer}}"),
            query(f"{duration} and {EXCLUDED}{PEER} == 1", "{{peer}} (excluded)"),
            query(f"tailscale_watchdog_max_relay_seconds{NODE}", "threshold"),
            unit="s",
        )
        .override_by_regexp("[(]excluded[)]$", [fixed_color(COLORS["offline"])])
        .override_by_name(
            "threshold",
            [
                fixed_color(BAD),
                models.DynamicConfigValue(
                    id_val="custom.lineStyle", value={"fill": "dash", "dash": [10, 10]}
                ),
            ],
        ),
        graph(
            "Verdicts",
            "Number of watched peers in the last run, by the reason of their verdict.",
            query(f"tailscale_watchdog_peers{NODE} > 0", "{{reason}}"),
        ),
        styled(
            left, "Cooldown left", "Time until the watchdog may restart tailscaled again.", width=6
        ),
        styled(
            age,
            "Last successful run",
            "Time since the watchdog last read a status. Without a status it restarts nothing.",
            width=6,
        ),
        graph(
            "Events per hour",
            "Restarts, failed restarts, peers detected on relay, and peers that recovered by "
            "themselves.",
            *(
                query(
                    f"round(increase(tailscale_watchdog_{name}_total{NODE}[1h]))",
                    name.replace("_", " "),
                )
                for name in counters
            ),
        ),
        graph(
            "Duration of the jobs",
            "Duration of each job's last run. keepalive waits 15 seconds for a peer that does not "
            "answer.",
            *(
                query(f"tailscale_{job}_duration_seconds{NODE}", job.replace("_", "-"))
                for job in jobs
            ),
            unit="s",
        ),
        graph(
            "Age of the files",
            "Time since each job last wrote its metrics file.",
            query(
                'time() - node_textfile_mtime_seconds{instance="$instance",'
                'file=~"(.*/)?tailscale-.*"}',
                "{{file}}",
            ),
            unit="s",
        ),
    ]


def guarded() -> list[Panel]:
    """Panels about the guarded policy of the selected node."""
    left = (
        stat.Panel()
        .with_target(query(f"tailscale_watchdog_budget_left{NODE}"))
        .unit("short")
        .decimals(0)
        .color_mode(BigValueColorMode.VALUE)
        .no_value("documented policy")
    )
    left.thresholds(thresholds((None, BAD), (1, GOOD)))
    return [
        graph(
            "Outcomes of remedies",
            "Number of restarts and port changes within 24 hours, by what became of the peer that "
            "caused them.",
            query(
                f"round(increase(tailscale_watchdog_remedies_total{NODE}[1d]))",
                "{{remedy}}: {{outcome}}",
            ),
        ),
        graph(
            "Help probability",
            "Estimated probability that the next remedy helps, for each peer on relay for too "
            "long that was direct in the last week. The lower it is, the longer the watchdog "
            "waits.",
            query(f"tailscale_watchdog_help_probability{PEER}", "{{peer}}"),
            unit="percentunit",
        )
        .min(0)
        .max(1),
        styled(
            left,
            "Budget left",
            "Number of remedies that may still fail to help. At 0 the watchdog restarts "
            "tailscaled for no peer, until the oldest of them is a day old.",
            width=6,
        ),
        styled(
            timeline("tailscale_watchdog_likely_cause", "cause", CAUSES),
            "Likely cause of each relay",
            "For each peer that is on relay for too long. `tsfc doctor` on the node and "
            "`tsfc explain PEER` say more.",
            width=18,
        ),
    ]


def build() -> dashboard.Dashboard:
    """Build the dashboard."""
    cluster = (
        dashboard.QueryVariable("cluster")
        .label("Cluster")
        .query(f"label_values({OF_TSFC}, cluster)")
        .all_value(".*")  # series may have no such label
    )
    job = (
        dashboard.QueryVariable("job")
        .label("Job")
        .query(f'label_values({OF_TSFC}{{cluster=~"$cluster"}}, job)')
    )
    instance = (
        dashboard.QueryVariable("instance")
        .label("Node")
        .query(f"label_values({selected('tailscale_up')}, instance)")
    )
    peer = (
        dashboard.QueryVariable("peer")
        .label("Peer")
        .query(f"label_values({selected(f'tailscale_peer_online{NODE}')}, peer)")
    )
    for variable in (cluster, job, peer):
        variable.multi(multi=True).include_all(include_all=True).current(
            models.VariableOption(text="All", value="$__all")
        )
    for variable in (cluster, job, instance, peer):
        variable.datasource(SOURCE).refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(
            models.VariableSort.ALPHABETICAL_ASC
        )
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
        "Paths of all peers of all nodes, and restarts by the watchdogs. Uses the metrics of tsfc."
    )
    board.with_variable(
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    )
    for variable in (cluster, job, instance, peer):
        board.with_variable(variable)
    restart = f"increase(tailscale_watchdog_restarts_total{NODE}[2m]) > 0"
    board.annotation(restarts.expr(selected(restart)))
    for title, panels in {
        "All nodes": overview(),
        "Paths of $instance": one_node(),
        "Watchdog of $instance": watchdog(),
        "Guarded policy of $instance": guarded(),
    }.items():
        board.with_row(dashboard.Row(title))
        for panel in panels:
            board.with_panel(panel)
    return board


def main() -> None:
    """Print the dashboard as JSON.

    Number the panels and name their queries, which the SDK leaves to Grafana.
    """
    document = json.loads(JSONEncoder().encode(build().build()))
    numbers = {panel["title"]: number for number, panel in enumerate(document["panels"], 1)}
    for panel in document["panels"]:
        panel["id"] = numbers[panel["title"]]
        for link in panel.get("fieldConfig", {}).get("defaults", {}).get("links", []):
            number = numbers[link["url"].removeprefix(PANEL)]
            link["url"] = f"?viewPanel={number}&${{__url_time_range}}&${{__all_variables}}"
        for letter, target in zip(LETTERS, panel.get("targets", []), strict=False):
            target["refId"] = letter
    sys.stdout.write(json.dumps(document, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
