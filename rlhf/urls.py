from django.urls import URLPattern, URLResolver, include, path

from rlhf.pages.campaigns import campaigns, close_campaign, start_policy, stop_policy
from rlhf.pages.compare import compare_rounds, compared_metrics
from rlhf.pages.dashboard import dashboard, panel_csv
from rlhf.pages.launch import check_launch, launch, measure_model
from rlhf.pages.log import stage_log, stage_log_text
from rlhf.pages.mission_control import build_base, mission_control
from rlhf.pages.models import (
    model,
    model_card_file,
    model_download,
    model_file,
    models,
    retire_policy,
)
from rlhf.pages.own_model import drop_model, own_model, use_model
from rlhf.pages.reward_round import reward_round
from rlhf.pages.round import metrics, metrics_csv, round_detail
from rlhf.pages.round_acts import (
    cancel_round,
    close_annotation,
    continue_in_doubt,
    give_verdict,
    retrain,
    retry_stage,
    simulate,
)
from rlhf.pages.samples import samples
from rlhf.pages.selection import selection

of_a_round: list[URLPattern | URLResolver] = [
    path("", round_detail, name="round"),
    path("metrics/<slug:stage>.json", metrics, name="metrics"),
    path("metrics/<slug:stage>.csv", metrics_csv, name="metrics_csv"),
    path("logs/<slug:stage>/", stage_log, name="stage_log"),
    path("logs/<slug:stage>.txt", stage_log_text, name="stage_log_text"),
    path("samples/", samples, name="samples"),
    path("close/", close_annotation, name="close_annotation"),
    path("simulate/", simulate, name="simulate"),
    path("verdict/", give_verdict, name="give_verdict"),
    path("continue/", continue_in_doubt, name="continue_in_doubt"),
    path("retrain/", retrain, name="retrain"),
    path("cancel/", cancel_round, name="cancel_round"),
    path("retry/", retry_stage, name="retry_stage"),
]

of_a_project: list[URLPattern | URLResolver] = [
    path("rounds/", mission_control, name="rounds"),
    path("rounds/launch/", launch, name="launch"),
    path("rounds/launch/check/", check_launch, name="check_launch"),
    path("rounds/launch/measure/", measure_model, name="measure_model"),
    path("rounds/base/", build_base, name="build_base"),
    path("rounds/model/", own_model, name="own_model"),
    path("rounds/model/use/", use_model, name="use_model"),
    path("rounds/model/drop/", drop_model, name="drop_model"),
    path("rounds/reward-models/", reward_round, name="reward_round"),
    path("rounds/compare/", compare_rounds, name="compare_rounds"),
    path("rounds/compare/metrics.json", compared_metrics, name="compared_metrics"),
    path("rounds/selection/", selection, name="selection"),
    path("rounds/<int:number>/", include(of_a_round)),
    path("models/", models, name="models"),
    path("models/retire/", retire_policy, name="retire_policy"),
    path("models/<uuid:uid>/", model, name="model"),
    path("models/<uuid:uid>/download/", model_download, name="model_download"),
    path("models/<uuid:uid>/card/", model_card_file, name="model_card"),
    path("models/<uuid:uid>/files/<path:name>", model_file, name="model_file"),
    path("campaigns/", campaigns, name="campaigns"),
    path("campaigns/<int:campaign>/close/", close_campaign, name="close_campaign"),
    path("campaigns/policies/<int:policy>/start/", start_policy, name="start_policy"),
    path("campaigns/policies/<int:policy>/stop/", stop_policy, name="stop_policy"),
    path("dashboard/", dashboard, name="dashboard"),
    path("dashboard/<slug:panel>.csv", panel_csv, name="panel_csv"),
]

urlpatterns = [path("projects/<slug:slug>/", include(of_a_project))]
