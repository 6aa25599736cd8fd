{{/*
The NetworkPolicy of a role, if there are any. Called with a dict: context, component, name, reviews (may be missing: whether API
servers call it).
*/}}
{{- define "leanserve.networkPolicy" -}}
{{- if .context.Values.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ .name }}
  namespace: {{ .context.Release.Namespace }}
  labels:
    {{- include "leanserve.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "leanserve.roleSelectorLabels" .component | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    {{- if .reviews }}
    # Reviews, which come from the API server: from outside of the cluster's network, so from anywhere.
    - ports:
        - port: webhook
    {{- end }}
    # Metrics; whoever may scrape them.
    - ports:
        - port: metrics
      {{- with .context.Values.networkPolicy.metricsFrom }}
      from:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    # Probes come from the node. Most network plugins let the node's own traffic through anyway.
    - ports:
        - port: probes
  egress:
    # The API server, by the address of its Service or by its own. No name is looked up, so no DNS.
    - ports:
        {{- range .context.Values.networkPolicy.apiServerPorts }}
        - port: {{ . | int64 }}
        {{- end }}
{{- end }}
{{- end -}}
