"""Your projects, over the REST API."""

from typing import Any

from django.db.models import OuterRef, Subquery
from rest_framework import serializers
from rest_framework.generics import ListAPIView

from annotation.models import Membership, Project


class AxisSerializer(serializers.Serializer[Any]):
    key = serializers.CharField()
    name = serializers.CharField()
    question = serializers.CharField()


class ProjectSerializer(serializers.Serializer[Any]):
    slug = serializers.SlugField()
    name = serializers.CharField()
    description = serializers.CharField()
    role = serializers.CharField(help_text="Your role in it.")
    interface = serializers.CharField()
    axes = AxisSerializer(many=True)
    protocol = serializers.SerializerMethodField(help_text="What is asked: docs/formats.md.")
    responses_per_comparison = serializers.IntegerField()
    overlap = serializers.IntegerField(help_text="How many people judge each comparison.")
    is_demo = serializers.BooleanField()

    def get_protocol(self, project: Project) -> dict[str, Any]:
        return project.effective_protocol.as_json()


class ProjectList(ListAPIView[Project]):
    """Projects that you are a member of."""

    serializer_class = ProjectSerializer
    queryset = Project.objects.none()

    def get_queryset(self) -> Any:
        mine = Membership.objects.filter(project=OuterRef("pk"), user=self.request.user.pk)
        roles = Subquery(mine.values("role")[:1])
        return Project.objects.for_user(self.request.user).annotate(role=roles)
