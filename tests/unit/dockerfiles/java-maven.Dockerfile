ARG JDK=21
FROM maven:3.9-eclipse-temurin-${JDK} AS build
WORKDIR /build
COPY pom.xml .
COPY --parents */pom.xml ./
RUN --mount=type=cache,target=/root/.m2,id=maven,sharing=shared mvn -B -q dependency:go-offline
COPY --exclude=**/target . .
RUN --mount=type=cache,target=/root/.m2,id=maven \
    mvn -B -q -DskipTests package \
    && java -Djarmode=tools -jar app/target/app.jar extract --layers --destination /layers

FROM eclipse-temurin:${JDK}-jre AS final
ARG APP_HOME=/opt/app
ENV JAVA_TOOL_OPTIONS="-XX:MaxRAMPercentage=75 -XX:+ExitOnOutOfMemoryError" \
    APP_HOME=${APP_HOME}
WORKDIR ${APP_HOME}
RUN useradd --system --home-dir "$APP_HOME" --shell /usr/sbin/nologin spring
COPY --link --from=build /layers/dependencies/ ./
COPY --link --from=build /layers/spring-boot-loader/ ./
COPY --link --from=build /layers/snapshot-dependencies/ ./
COPY --link --from=build /layers/application/ ./
USER spring:spring
VOLUME ["/opt/app/logs", "/tmp"]
EXPOSE 8080 8081
LABEL org.opencontainers.image.title="app" \
      org.opencontainers.image.description="An app \
in Java" \
      org.opencontainers.image.licenses='Apache-2.0'
ENTRYPOINT ["java", "-jar", "app.jar"]
