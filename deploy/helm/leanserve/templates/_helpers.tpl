{{/*
What every object's name begins with. Names that the operator looks for (its ConfigMap, its Lease) do not vary. With -webhook at
its end it is to be a Service's name, of 63 characters at most.
*/}}
{{- define "leanserve.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 55 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 55 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 55 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "leanserve.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "leanserve.fullname" .) -}}
{{- end -}}

{{/* What finds the operator's Pods. Never more: a Deployment's selector cannot change. */}}
{{- define "leanserve.selectorLabels" -}}
{{ include "leanserve.roleSelectorLabels" "controller" }}
{{- end -}}

{{/* Labels of every object. Called with a dict: context, component (may be missing). */}}
{{- define "leanserve.labels" -}}
app.kubernetes.io/name: leanserve
app.kubernetes.io/part-of: leanserve
app.kubernetes.io/instance: {{ .context.Release.Name }}
app.kubernetes.io/managed-by: {{ .context.Release.Service }}
app.kubernetes.io/version: {{ .context.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .context.Chart.Name (.context.Chart.Version | replace "+" "_") }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with .context.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "leanserve.image" -}}
{{- $image := .Values.image -}}
{{- with $image.registry }}{{ . | trimSuffix "/" }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest -}}
@{{ $image.digest }}
{{- else -}}
:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* The account as a subject of a binding. */}}
{{- define "leanserve.subject" -}}
- kind: ServiceAccount
  name: {{ include "leanserve.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}

{{/*
Binds a ClusterRole to an account: in the namespaces that are served, or in all if none are named. The account is the
controller's, or that of another component, which is called as the component is. Called with a dict: context, role, component.
*/}}
{{- define "leanserve.binding" -}}
{{- $context := .context -}}
{{- $role := .role -}}
{{- $labels := dict "context" .context -}}
{{- $account := include "leanserve.serviceAccountName" .context -}}
{{- with .component -}}
{{- $_ := set $labels "component" . -}}
{{- $account = include "leanserve.roleName" (dict "context" $context "role" .) -}}
{{- end -}}
{{- range $namespace := (.context.Values.watchNamespaces | default (list "")) }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ if $namespace }}RoleBinding{{ else }}ClusterRoleBinding{{ end }}
metadata:
  name: {{ $role }}
  {{- if $namespace }}
  namespace: {{ $namespace }}
  {{- end }}
  labels:
    {{- include "leanserve.labels" $labels | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ $role }}
subjects:
  - kind: ServiceAccount
    name: {{ $account }}
    namespace: {{ $context.Release.Namespace }}
{{- end }}
{{- end -}}

{{/* The name of what belongs to another role than the controller. Called with a dict: context, role. */}}
{{- define "leanserve.roleName" -}}
{{- printf "%s-%s" (include "leanserve.fullname" .context) .role -}}
{{- end -}}

{{/* The account of another role. Called with a dict: context, role. */}}
{{- define "leanserve.roleAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "leanserve.roleName" . }}
  namespace: {{ .context.Release.Namespace }}
  labels:
    {{- include "leanserve.labels" (dict "context" .context "component" .role) | nindent 4 }}
{{- end -}}

{{/* Binds the Role or ClusterRole of another role, which is called as the role is. Called with a dict: context, role, kind. */}}
{{- define "leanserve.roleBinding" -}}
{{- $name := include "leanserve.roleName" . -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}Binding
metadata:
  name: {{ $name }}
  {{- if eq .kind "Role" }}
  namespace: {{ .context.Release.Namespace }}
  {{- end }}
  labels:
    {{- include "leanserve.labels" (dict "context" .context "component" .role) | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ .context.Release.Namespace }}
{{- end -}}
