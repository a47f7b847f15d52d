// What a dashboard of ours may hold: Grafana's own types, narrowed to the panels that we use and to the
// queries that Prometheus takes. The check writes the JSON into a constant of this type and lets the compiler
// judge it, so an unknown member, a wrong value or a missing one is an error.
import type * as dashboards from "@grafana/schema/dist/types/raw/dashboard/x/dashboard_types.gen.d.ts";
import type * as stat from "@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen.d.ts";
import type * as timeseries from "@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen.d.ts";

// As JSON has it: a member of an enum is its text.
type Json<T> = T extends string
  ? `${T}`
  : T extends (infer Element)[]
    ? Json<Element>[]
    : T extends object
      ? { [Member in keyof T]: Json<T[Member]> }
      : T;

type Source = { type: "prometheus"; uid: "prometheus" };
type Query = { refId: string; datasource: Source; expr: string; legendFormat: string; editorMode: "code"; range: true };
type Place = Json<Required<Omit<dashboards.GridPos, "static">>>;
type Defaults = Omit<Json<dashboards.FieldConfig>, "custom">;

type Panel<Type, Options, Custom> = {
  id: number;
  type: Type;
  title: string;
  description: string;
  datasource: Source;
  gridPos: Place;
  fieldConfig: { defaults: Defaults & Custom; overrides: [] };
  options: Json<Options>;
  targets: [Query, ...Query[]];
};
type Row = { id: number; type: "row"; title: string; collapsed: false; gridPos: Place; panels: [] };

export type Dashboard = Omit<Json<dashboards.Dashboard>, "panels"> & {
  uid: string;
  panels: (
    | Row
    | Panel<"stat", stat.Options, {}>
    | Panel<"timeseries", timeseries.Options, { custom: Json<timeseries.FieldConfig> }>
  )[];
};
